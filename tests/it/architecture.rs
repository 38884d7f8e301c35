//! The layering that ARCHITECTURE.md promises, held against the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and what it may import of ours. Data goes one way: nothing imports what stands below it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("message", &[]),
    ("metrics", &["message"]),
    ("policy", &["message"]),
    ("settings", &["message"]),
    ("tokens", &[]),
    ("failpoint", &[]),
    ("telemetry", &["settings"]),
    ("shutdown", &[]),
    ("store", &["failpoint", "message", "settings"]),
    ("broker", &["failpoint", "message", "metrics", "settings"]),
    ("graph", &["message", "policy", "settings"]),
    ("server", &[]),
    ("feedback", &["broker", "message", "settings", "store"]),
    (
        "ingest",
        &["broker", "failpoint", "feedback", "message", "metrics", "server", "settings", "store", "tokens"],
    ),
    ("api", &["ingest", "message", "policy", "settings", "store"]),
    (
        "dispatch",
        &["broker", "failpoint", "feedback", "graph", "message", "metrics", "policy", "settings", "store"],
    ),
    ("ops", &["broker", "message", "metrics", "server", "store"]),
    ("simulator", &[]),
    (
        "app",
        &[
            "api", "broker", "dispatch", "feedback", "graph", "ingest", "message", "ops", "policy", "server",
            "settings", "store",
        ],
    ),
    (
        "cli",
        &[
            "api",
            "app",
            "broker",
            "graph",
            "message",
            "policy",
            "settings",
            "shutdown",
            "simulator",
            "store",
            "telemetry",
            "tokens",
        ],
    ),
];

/// Crates that only one place of the program knows.
const KNOWN_ONLY_BY: &[(&str, &[&str])] = &[
    ("sqlx", &["src/store/"]),
    ("lapin", &["src/broker/rabbitmq/"]),
    ("reqwest", &["src/graph/", "src/cli/"]),
    (
        "axum",
        &["src/api/", "src/ingest/http.rs", "src/ingest/http/", "src/ops/", "src/server/", "src/simulator/"],
    ),
    ("governor", &["src/policy/", "src/dispatch/clock.rs"]),
    ("backoff", &["src/policy/retry.rs"]),
    ("metrics_exporter_prometheus", &["src/metrics/"]),
];

/// Modules whose decisions hang on no machine's wall clock: times come from the database, durations from the monotonic
/// clock.
const WITHOUT_WALL_CLOCK: &[&str] = &["dispatch", "policy", "graph", "broker"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is part of the repository") {
        let path = entry.expect("its entries are readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file without its comments and its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("sources are UTF-8");
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
        || path.components().any(|part| part.as_os_str() == "tests")
}

fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix("src").expect("sources lie in src");
    let first = inside.components().next().expect("a path has parts").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Names that follow `crate::` in a text.
fn imports(code: &str) -> BTreeSet<String> {
    code.match_indices("crate::")
        .map(|(at, found)| {
            code[at + found.len()..]
                .chars()
                .take_while(|character| character.is_alphanumeric() || *character == '_')
                .collect::<String>()
        })
        .filter(|name| !name.is_empty() && name.chars().next().is_some_and(char::is_lowercase))
        .collect()
}

#[test]
fn modules_import_only_what_stands_above_them() {
    let mut wrong = Vec::new();
    for path in sources(Path::new("src")) {
        let module = module_of(&path);
        if module == "main" || module == "lib" || is_test(&path) {
            continue;
        }
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: module {module} has no place in the layering", path.display()));
            continue;
        };
        for import in imports(&code(&path)) {
            if import != module && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}: {module} may not import {import}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_with_one_home_are_known_nowhere_else() {
    let mut wrong = Vec::new();
    for path in sources(Path::new("src")) {
        if is_test(&path) {
            continue;
        }
        let code = code(&path);
        let place = path.to_string_lossy().into_owned();
        for (name, homes) in KNOWN_ONLY_BY {
            let used = code.contains(&format!("{name}::"));
            if used && !homes.iter().any(|home| place.starts_with(home)) {
                wrong.push(format!("{place} uses {name}, which is known only to {homes:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `OpenApiRouter::routes` takes what is documented; its other ways in take handlers of which the document says nothing.
#[test]
fn nothing_is_served_to_senders_that_the_document_does_not_say() {
    let mut wrong = Vec::new();
    for path in sources(Path::new("src/api")).into_iter().chain(sources(Path::new("src/ingest"))) {
        let code = code(&path);
        for way in [".route(", ".route_service(", ".nest_service("] {
            if code.contains(way) {
                wrong.push(format!("{}: `{way}`: annotate the handler and use `routes!`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_decides_about_calls_reads_no_wall_clock() {
    for path in sources(Path::new("src")) {
        if !WITHOUT_WALL_CLOCK.contains(&module_of(&path).as_str()) || is_test(&path) {
            continue;
        }
        let code = code(&path);
        for clock in ["now_utc", "now_local", "SystemTime", "UtcDateTime", "UNIX_EPOCH"] {
            assert!(!code.contains(clock), "{} reads a wall clock: {clock}", path.display());
        }
    }
}

#[test]
fn the_layering_is_checked_against_modules_that_exist() {
    let existing: BTreeSet<String> = sources(Path::new("src")).iter().map(|path| module_of(path)).collect();
    for (module, _) in MAY_IMPORT {
        assert!(existing.contains(*module), "{module} is in the layering and not in src");
    }
    assert!(imports("use crate::store::Change; crate::policy::retry::decide()").contains("policy"));
}
