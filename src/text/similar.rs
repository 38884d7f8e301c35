//! The known name that a misspelled one may mean.

/// Shorter names resemble too many others.
const SHORTEST_GIVEN: usize = 3;
const SHORTEST_KNOWN: usize = 4;
/// Longer than any known name, in bytes.
const LONGEST_GIVEN: usize = 64;

/// Return the known name that is one edit away from the given one, or the same in another case.
pub fn meant<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    if given.len() > LONGEST_GIVEN {
        return None;
    }
    let given = given.to_lowercase();
    let is_long_enough = given.chars().count() >= SHORTEST_GIVEN;
    let is_meant = |name: &&&str| {
        is_long_enough && name.len() >= SHORTEST_KNOWN && strsim::osa_distance(&given, name) <= 1
    };
    known.iter().find(|name| **name == given).or_else(|| known.iter().find(is_meant)).copied()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const KNOWN: [&str; 8] = ["tsid", "sid", "dest", "mdata", "priority", "send_at", "wait", "valid_for"];

    #[rstest]
    #[case("sendat", "send_at")]
    #[case("send-at", "send_at")]
    #[case("sendAt", "send_at")]
    #[case("prioriy", "priority")]
    #[case("priorty", "priority")]
    #[case("proirity", "priority")]
    #[case("destt", "dest")]
    #[case("Dest", "dest")]
    #[case("wai", "wait")]
    #[case("valid_four", "valid_for")]
    fn one_edit_names_the_meant(#[case] given: &str, #[case] name: &str) {
        assert_eq!(meant(given, &KNOWN), Some(name));
    }

    #[rstest]
    #[case("")]
    #[case("id")]
    #[case("uid")]
    #[case("agente")]
    #[case("message")]
    #[case("destination")]
    #[case("sned_ta")]
    fn other_names_mean_nothing(#[case] given: &str) {
        assert_eq!(meant(given, &KNOWN), None);
    }

    #[test]
    fn same_name_precedes_a_near_one() {
        assert_eq!(meant("SID", &KNOWN), Some("sid"));
    }
}
