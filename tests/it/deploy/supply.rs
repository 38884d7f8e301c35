//! The supply chain: sources of the dependencies, exceptions with reasons, and the list of what is compiled in.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{file, left_out, stdout};

#[test]
fn every_dependency_is_of_the_registry_with_a_checksum() {
    let lock = fs::read_to_string(file("Cargo.lock")).expect("the file is part of the repository");
    let own =
        ["meta-dispatch", "meta-dispatch-bench", "meta-dispatch-chaos", "meta-dispatch-fuzz", "testkit"];
    let mut packages = 0;
    for package in lock.split("[[package]]\n").skip(1) {
        let value = |key: &str| {
            let start = format!("{key} = \"");
            package.lines().find_map(|line| line.strip_prefix(&start)).map(|rest| rest.trim_end_matches('"'))
        };
        let name = value("name").expect("each has a name");
        match value("source") {
            None => assert!(own.contains(&name), "{name} comes from a folder"),
            Some(source) => {
                assert_eq!(source, "registry+https://github.com/rust-lang/crates.io-index", "{name}");
                assert_eq!(value("checksum").map(str::len), Some(64), "{name}");
            }
        }
        packages += 1;
    }
    assert!(packages > 200, "Cargo.lock was not read");
}

#[test]
fn each_exception_has_its_reason() {
    let rules = fs::read_to_string(file("deny.toml")).expect("the file is part of the repository");
    let entries: Vec<&str> = rules
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("{ id =") || line.starts_with("{ crate ="))
        .collect();
    assert!(entries.len() > 5, "deny.toml was not read");
    for entry in entries {
        let is_explained =
            entry.contains("reason = \"") || entry.contains("allow = [\"CDLA-Permissive-2.0\"]");
        assert!(is_explained, "{entry}");
    }
}

#[test]
fn no_dependency_speaks_http_2() {
    let manifest = fs::read_to_string(file("Cargo.toml")).expect("the file is part of the repository");
    assert!(!manifest.contains("\"http2\""), "HTTP/2 is not spoken");
    let lock = fs::read_to_string(file("Cargo.lock")).expect("the file is part of the repository");
    assert!(!lock.contains("name = \"h2\"\n"), "a dependency turns HTTP/2 on");
}

#[test]
fn list_of_components_holds_what_is_compiled_in() {
    for (program, arguments) in [("cargo", ["--version", "--quiet"]), ("python3", ["-c", "import tomllib"])] {
        if !Command::new(program).args(arguments).output().is_ok_and(|ran| ran.status.success()) {
            left_out(&format!("deploy/sbom ({program} is not installed, or Python is older than 3.11)"));
            return;
        }
    }
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let list = || stdout(Command::new(file("deploy/sbom")).args(["--target", &target]));
    let written = list();
    let sbom: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!((sbom["bomFormat"].as_str(), sbom["specVersion"].as_str()), (Some("CycloneDX"), Some("1.5")));
    let components = sbom["components"].as_array().expect("a list");
    let names: BTreeSet<&str> =
        components.iter().filter_map(|component| component["name"].as_str()).collect();
    for name in ["ring", "rustls", "sqlx-postgres", "lapin", "sqlite", "backoff"] {
        assert!(names.contains(name), "{name} is missing");
    }
    // Of tests alone, and named in Cargo.lock alone.
    for name in ["rstest", "rcgen", "testkit", "sqlx-mysql", "rsa", "openssl-sys", "aws-lc-rs", "h2"] {
        assert!(!names.contains(name), "{name} is not compiled in");
    }
    for component in components {
        let name = &component["name"];
        assert!(component["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:")), "{name}");
        assert!(component["licenses"].is_array(), "{name} has no licence");
    }
    assert_eq!(list(), written, "the same source gives the same list");
}
