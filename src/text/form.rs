//! `application/x-www-form-urlencoded`: queries and form bodies.

use percent_encoding::percent_decode;

use super::charset::{Charset, Decoded, decoded};

/// Return the pairs of a query or a form body, in their order: names and values, decoded each by itself.
pub fn form_pairs(bytes: &[u8], charset: Charset) -> impl Iterator<Item = (String, Decoded)> + '_ {
    bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let split = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = split.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
        (decoded(&unescaped(name), charset).text, decoded(&unescaped(value), charset))
    })
}

/// Decode a form's escapes: `+` is a blank, `%XX` a byte; a broken escape stands for itself.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let blanks: Vec<u8> = bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&blanks).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
        form_pairs(bytes, Charset::Utf8).map(|(name, value)| (name, value.text)).collect()
    }

    #[rstest]
    #[case(b"a=b+c%20d%26e", "b c d&e")]
    #[case(b"a=ol%C3%A1", "olá")]
    #[case(b"a=ol%E1", "olá")]
    #[case(b"a=ol\xe1", "olá")]
    #[case(b"a=%93x%94", "“x”")]
    #[case(b"a=100%", "100%")]
    #[case(b"a=%zz", "%zz")]
    #[case(b"a", "")]
    #[case(b"&&a=b=c&", "b=c")]
    fn form_value_is_unescaped(#[case] bytes: &[u8], #[case] value: &str) {
        assert_eq!(pairs(bytes), [("a".to_owned(), value.to_owned())]);
    }

    #[test]
    fn values_are_read_each_by_itself() {
        let read = pairs(b"mdata=Ol%C3%A1+%F0%9F%98%80&agente=Jos%E9");
        let expected = [("mdata", "Olá 😀"), ("agente", "José")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
