//! The screen for people's answers: a terminal with its width and colours, or an output that keeps every text
//! whole.

use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};

/// Columns of a terminal without a known width.
const USUAL_WIDTH: u16 = 80;

/// The destination of answers for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Columns of the terminal. `None` where there is no terminal: a file or another program receives every
    /// text whole.
    pub width: Option<u16>,
    /// Whether the words of states have colours.
    pub colours: bool,
}

impl Screen {
    /// Return the screen of standard output.
    pub fn stdout() -> Screen {
        let is_terminal = io::stdout().is_terminal();
        let told = comfy_table::Table::new().width().filter(|columns| *columns > 0);
        let (no_color, term) = (env::var_os("NO_COLOR"), env::var_os("TERM"));
        Screen {
            width: is_terminal.then(|| told.unwrap_or(USUAL_WIDTH)),
            colours: is_terminal && wants_colours(no_color.as_deref(), term.as_deref()),
        }
    }
}

/// Whether the environment lets a terminal have colours: <https://no-color.org>.
fn wants_colours(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::terminal(None, Some("xterm-256color"), true)]
    #[case::terminal_without_a_name(None, None, true)]
    #[case::empty_variable(Some(""), Some("xterm"), true)]
    #[case::no_color(Some("1"), Some("xterm"), false)]
    #[case::dumb_terminal(None, Some("dumb"), false)]
    fn environment_decides_about_colours(
        #[case] no_color: Option<&str>,
        #[case] term: Option<&str>,
        #[case] expected: bool,
    ) {
        assert_eq!(wants_colours(no_color.map(OsStr::new), term.map(OsStr::new)), expected);
    }
}
