//! The one normalisation of ids, labels and tokens: invisible characters around them do not belong to them.
//!
//! Every way in passes here; otherwise the endpoint and a command could read one label as two campaigns.

/// Return the text without white space and invisible characters around it.
pub fn trimmed(text: &str) -> &str {
    text.trim_matches(is_unseen)
}

/// Whether the text is empty or invisible.
pub fn is_blank(text: &str) -> bool {
    trimmed(text).is_empty()
}

/// Return a text of the database, which other programs write too, trimmed; a blank text counts as none.
pub fn seen(text: Option<String>) -> Option<String> {
    text.map(|text| trimmed(&text).to_owned()).filter(|text| !text.is_empty())
}

/// Whether the character is white space, or invisible: soft hyphens, zero-width spaces, marks of direction,
/// byte order marks.
///
/// Variation selectors, tags and NUL are not among them: the first two end emoji and belong to them, and the
/// last is refused, never dropped.
pub fn is_unseen(character: char) -> bool {
    character.is_whitespace()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
        )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::blanks(" 253\t\r\n")]
    #[case::no_break_spaces("\u{a0}253\u{202f}\u{2007}")]
    #[case::zero_width("\u{200b}253\u{200c}\u{200d}")]
    #[case::marks_of_direction("\u{200e}\u{202a}253\u{202c}\u{200f}")]
    #[case::word_joiner("\u{2060}253")]
    #[case::byte_order_marks("\u{feff}\u{feff}253")]
    #[case::soft_hyphen("253\u{ad}")]
    #[case::ideographic_space("\u{3000}253")]
    #[case::several_kinds("\u{feff} \u{200b}253 \u{ad}\n")]
    fn unseen_characters_around_are_dropped(#[case] text: &str) {
        assert_eq!(trimmed(text), "253");
    }

    #[test]
    fn inner_characters_stay() {
        assert_eq!(trimmed(" a \u{200b}b "), "a \u{200b}b");
    }

    #[test]
    fn emoji_and_nul_stay_whole() {
        for whole in ["❤\u{fe0f}", "🏴\u{e0067}\u{e0062}\u{e007f}", "a\0", "\0"] {
            assert_eq!(trimmed(whole), whole);
        }
    }

    #[test]
    fn text_of_the_database_is_trimmed_or_none() {
        assert_eq!(seen(Some("EAAtoken\r\n".to_owned())).as_deref(), Some("EAAtoken"));
        assert_eq!((seen(Some(" \u{200b}".to_owned())), seen(None)), (None, None));
    }

    #[test]
    fn unseen_text_is_blank() {
        assert!(is_blank("") && is_blank(" \u{200b}\u{feff}\n") && !is_blank(" x "));
    }
}
