//! Texts that cannot be a recipient's id: PSIDs and IGSIDs are opaque, but spreadsheets are known to mangle
//! them.

use crate::text::is_unseen;

/// Marks that stand around or inside a text, and in no id.
const QUOTES: [char; 11] = ['\'', '"', '`', '´', '‘', '’', '“', '”', '„', '«', '»'];

/// Return why a trimmed `dest` cannot be an id, if so: the fault, and the remedy.
pub fn mangled(dest: &str) -> Option<&'static str> {
    let looks_like_number = dest.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    if dest.contains(',') && looks_like_number {
        return Some(
            "`dest` holds a comma, as spreadsheets write large numbers: format the column as text before the ids go in",
        );
    }
    if dest.contains(',') {
        return Some("`dest` holds a comma: give one recipient's id; each recipient is a message of its own");
    }
    if dest.contains(QUOTES) {
        return Some(
            "`dest` holds a quote, as spreadsheets write texts (`'253`, `=\"253\"`): give the id without it",
        );
    }
    if dest.contains('=') {
        return Some("`dest` holds `=`, as spreadsheets write formulas: give the id alone");
    }
    // In a form an unescaped `+` is a blank.
    if is_fraction_or_power(&dest.replacen(' ', "+", 1)) {
        return Some(
            "`dest` is a number with a point or an exponent, as spreadsheets mangle long ids (2.53E+16): export the \
             column as text; digits that were lost cannot be brought back",
        );
    }
    if dest.contains(|c: char| is_unseen(c) || c.is_control()) {
        return Some(
            "`dest` holds white space or an invisible character: give one id; perhaps columns are exchanged",
        );
    }
    if dest.starts_with('#') {
        return Some("`dest` is an error of a spreadsheet (`#N/A`, `#NAME?`): repair the cell's formula");
    }
    None
}

/// `2531927391.0`, `2.531.927.391`, `2.53E+16`, `2E16`, `-1.5e3`.
fn is_fraction_or_power(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (number, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let has_digit = number.bytes().any(|byte| byte.is_ascii_digit());
    let is_number = has_digit && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_number && exponent.is_none_or(is_digits) && (number.contains('.') || exponent.is_some())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2531927391")]
    #[case("17841400000000001")]
    #[case("code10-2531927391")]
    #[case("d1")]
    #[case("a.b")]
    #[case("user_7@example")]
    #[case("e5")]
    #[case("12e")]
    #[case("-5")]
    #[case("Ação")]
    fn opaque_ids_are_accepted(#[case] dest: &str) {
        assert_eq!(mangled(dest), None);
    }

    #[rstest]
    #[case("'253", "quote")]
    #[case("=\"253\"", "quote")]
    #[case("\u{2019}253", "quote")]
    #[case("=253", "=")]
    #[case("2,531,927,391", "comma")]
    #[case("2,53193E+15", "comma")]
    #[case("253,254", "comma")]
    #[case("ann,bob", "comma")]
    #[case("Ola Ana", "white space")]
    #[case("253\u{a0}927", "white space")]
    #[case("253\u{200b}927", "invisible")]
    #[case("253\u{1}927", "invisible")]
    #[case("2.53193E+16", "exponent")]
    #[case("2.53193E 16", "exponent")]
    #[case("2531927391.0", "point")]
    #[case("2.531.927.391", "point")]
    #[case("2531927391.", "point")]
    #[case("2E16", "exponent")]
    #[case("-2.5e+16", "exponent")]
    #[case("#N/A", "spreadsheet")]
    fn mangled_ids_name_the_cause(#[case] dest: &str, #[case] word: &str) {
        assert!(mangled(dest).is_some_and(|told| told.contains(word)), "{:?}", mangled(dest));
    }
}
