//! Refusals that tell of the recipient: the person has blocked the Page, or left.

use crate::domain::ErrorDetail;

const NOT_AVAILABLE: i32 = 551;
const NOT_AVAILABLE_SUBCODE: i32 = 1_545_041;

/// Whether Graph has said that the recipient cannot be reached: code 551, or its subcode under another code.
pub fn is_unreachable(error: &ErrorDetail) -> bool {
    error.code == Some(NOT_AVAILABLE) || error.subcode == Some(NOT_AVAILABLE_SUBCODE)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::code(Some(551), None, true)]
    #[case::both(Some(551), Some(1_545_041), true)]
    #[case::subcode_under_200(Some(200), Some(1_545_041), true)]
    #[case::permission(Some(200), None, false)]
    #[case::window(Some(10), Some(2_018_278), false)]
    #[case::no_answer(None, None, false)]
    fn tells_of_the_recipient(
        #[case] code: Option<i32>,
        #[case] subcode: Option<i32>,
        #[case] expected: bool,
    ) {
        assert_eq!(is_unreachable(&ErrorDetail { code, subcode, ..ErrorDetail::default() }), expected);
    }
}
