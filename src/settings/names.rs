//! The names of environment variables, and the setting that a mistyped name means.
//!
//! An ignored variable leaves its setting at the default: `database.url` at a new file in the current folder.
//! A name that misses a setting's by a letter, its case or an underscore is therefore refused. Names of other
//! owners stay: those of the commands and the test harness, and those that Kubernetes adds for a service of
//! this program's name.

use config::{Map, Value, ValueKind};

/// The prefix of the variable of each setting.
pub(super) const PREFIX: &str = "META_DISPATCH__";

/// Variables that other parts read, or that belong to the examples.
const OTHERS: [&str; 4] =
    ["META_DISPATCH_TSID", "META_DISPATCH_URL", "META_DISPATCH_FAILPOINT", "META_DISPATCH_DEFECT"];

/// The longest distance between an unknown name under the prefix and the suggested one.
const SUGGESTED_WITHIN: usize = 3;
/// Any other name is refused within this distance.
const REFUSED_WITHIN: usize = 1;

/// Return the variable of each setting.
pub(super) fn variables(known: &Map<String, Value>) -> Vec<String> {
    let mut variables = Vec::new();
    add(known, PREFIX, &mut variables);
    variables.sort();
    variables
}

fn add(section: &Map<String, Value>, prefix: &str, variables: &mut Vec<String>) {
    for (name, value) in section {
        let name = format!("{prefix}{}", name.to_uppercase());
        match &value.kind {
            ValueKind::Table(section) => add(section, &format!("{name}__"), variables),
            _ => variables.push(name),
        }
    }
}

/// Return the variable that a name without the prefix means, if the name misses one.
pub(super) fn mistyped<'v>(name: &str, variables: &'v [String]) -> Option<&'v str> {
    let letters = letters(name);
    // Only names with these letters can be near, and most of the environment has none.
    if !letters.contains("DISPA") && !letters.starts_with("META") {
        return None;
    }
    if OTHERS.contains(&name) || is_of_kubernetes(name) {
        return None;
    }
    near(&letters, variables, REFUSED_WITHIN)
}

/// Return the variable that comes nearest to a name, if one is near.
pub(super) fn nearest<'v>(name: &str, variables: &'v [String]) -> Option<&'v str> {
    near(&letters(name), variables, SUGGESTED_WITHIN)
}

fn near<'v>(name: &str, variables: &'v [String], within: usize) -> Option<&'v str> {
    let distance = |variable: &&String| strsim::osa_distance(name, &letters(variable));
    let nearest = variables.iter().min_by_key(distance)?;
    (distance(&nearest) <= within).then_some(nearest.as_str())
}

/// Return a name without the parts that are mistyped most: its case, and the number and places of
/// underscores.
fn letters(name: &str) -> String {
    name.chars().filter(|c| *c != '_').collect::<String>().to_uppercase()
}

/// Whether Kubernetes adds this variable for a service: `…_SERVICE_HOST`, `…_SERVICE_PORT`,
/// `…_SERVICE_PORT_HTTP`, `…_PORT`, `…_PORT_8080_TCP`, `…_PORT_8080_TCP_ADDR`.
fn is_of_kubernetes(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split("_PORT_").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<String> {
        let keys =
            ["DATABASE__URL", "LOG__FILTER", "GRAPH__BASE_URL", "ADMIN__LISTEN", "LIMITS__MESSENGER__TEXT"];
        keys.map(|key| format!("{PREFIX}{key}")).to_vec()
    }

    #[rstest::rstest]
    #[case::an_underscore("META_DISPATCH_DATABASE__URL", "META_DISPATCH__DATABASE__URL")]
    #[case::two_underscores("META_DISPATCH_DATABASE_URL", "META_DISPATCH__DATABASE__URL")]
    #[case::none_at_all("METADISPATCH_LOG_FILTER", "META_DISPATCH__LOG__FILTER")]
    #[case::the_case("meta_dispatch__database__url", "META_DISPATCH__DATABASE__URL")]
    #[case::the_case_of_the_prefix("Meta_Dispatch__GRAPH__BASE_URL", "META_DISPATCH__GRAPH__BASE_URL")]
    #[case::a_letter("META_DISPACH__DATABASE__URL", "META_DISPATCH__DATABASE__URL")]
    #[case::two_letters_swapped("META_DISPATCH_ADMIN_LISETN", "META_DISPATCH__ADMIN__LISTEN")]
    fn mistyped_name_suggests_the_setting(#[case] given: &str, #[case] meant: &str) {
        assert_eq!(mistyped(given, &known()), Some(meant));
    }

    #[rstest::rstest]
    #[case("META_DISPATCH_TSID")]
    #[case("META_DISPATCH_URL")]
    #[case("META_DISPATCH_FAILPOINT")]
    #[case("META_DISPATCH_SERVICE_HOST")]
    #[case("META_DISPATCH_SERVICE_PORT_HTTP")]
    #[case("META_DISPATCH_PORT")]
    #[case("META_DISPATCH_PORT_8080_TCP_ADDR")]
    #[case("META_DISPATCH_ADMIN_PORT_9090_TCP")]
    #[case("META_DISPATCH_IMAGE")]
    #[case("DATABASE_URL")]
    #[case("PATH")]
    fn leaves_names_of_others_alone(#[case] given: &str) {
        assert_eq!(mistyped(given, &known()), None);
    }

    #[test]
    fn suggests_a_near_name_and_no_far_one() {
        assert_eq!(nearest("META_DISPATCH__DATABSE__URL", &known()), Some("META_DISPATCH__DATABASE__URL"));
        assert_eq!(nearest("META_DISPATCH__COLOUR__RED", &known()), None);
    }
}
