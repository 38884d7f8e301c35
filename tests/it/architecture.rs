//! The layering that ARCHITECTURE.md promises, held against the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates that only one place of the program knows.
const KNOWN_ONLY_BY: &[(&str, &[&str])] = &[
    ("sqlx", &["src/store/"]),
    ("lapin", &["src/broker/rabbitmq/"]),
    ("reqwest", &["src/graph/", "src/cli/", "src/simulator/webhooks/"]),
    (
        "axum",
        &["src/api/", "src/edge/", "src/ingest/http/", "src/ops/", "src/simulator/", "src/webhooks/http.rs"],
    ),
    ("tokio_rustls", &["src/edge/"]),
    ("x509_parser", &["src/edge/"]),
    ("governor", &["src/policy/", "src/dispatch/clock.rs"]),
    ("backoff", &["src/policy/backoff.rs", "src/policy/mod.rs"]),
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

/// The rows of ARCHITECTURE.md's table of modules, in their order: a module, and the modules it may import.
fn layers() -> Vec<(String, BTreeSet<String>)> {
    let page = fs::read_to_string("ARCHITECTURE.md").expect("the page is part of the repository");
    let table =
        page.split("| module | is for | may import |\n|---|---|---|\n").nth(1).expect("the table is there");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let module = names(cells[0]).remove(0);
        (module, names(cells[2]).into_iter().collect())
    })
    .collect()
}

/// Each module of `src`, and the other modules that its files import.
fn imported() -> BTreeMap<String, BTreeSet<String>> {
    let mut imported = BTreeMap::<String, BTreeSet<String>>::new();
    for path in sources(Path::new("src")) {
        let module = module_of(&path);
        if module == "main" || module == "lib" || is_test(&path) {
            continue;
        }
        let others = imports(&code(&path)).into_iter().filter(|import| *import != module);
        imported.entry(module.clone()).or_default().extend(others);
    }
    imported
}

#[test]
fn imports_equal_the_table() {
    let layers: BTreeMap<_, _> = layers().into_iter().collect();
    assert_eq!(imported(), layers, "left: imports of src; right: the table in ARCHITECTURE.md");
}

#[test]
fn imports_only_go_upwards() {
    let mut above = BTreeSet::new();
    for (module, imports) in layers() {
        let below: Vec<_> = imports.difference(&above).collect();
        assert!(below.is_empty(), "{module} imports {below:?}, which stand below it in the table");
        above.insert(module);
    }
}

#[test]
fn crates_stay_in_their_homes() {
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
fn routes_are_documented() {
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
fn decisions_read_no_wall_clock() {
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
