//! The parts of a release beside the program: the compose file, its secrets and users, the images, the list of
//! components, the limits without a container engine, and the page for auditors.

mod compose;
mod hardened;
mod secrets;
mod supply;
mod yaml;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use regex::Regex;

/// A file of the repository by its path from the root; tests start programs in other folders.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn ran(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Standard output of a command that has to succeed.
fn stdout(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = ran(command);
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("output is UTF-8")
}

/// Say why a test is left out, past its captured output.
fn left_out(why: &str) {
    let _ = writeln!(std::io::stderr(), "left out: {why}");
}

/// The files of Rust below a folder, each with its path as modules are named.
fn modules(root: &str, folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is part of the repository") {
        let path = entry.expect("its entries are readable").path();
        if path.is_dir() {
            found.extend(modules(root, &path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let inside = path.strip_prefix(file(root)).expect("it lies there").with_extension("");
            let name = inside.to_str().expect("names are UTF-8").replace('/', "::");
            let name = name.strip_suffix("::mod").unwrap_or(&name).to_owned();
            found.push((name, fs::read_to_string(&path).expect("sources are UTF-8")));
        }
    }
    found
}

/// Whether a text has a function of this name with an attribute that makes it a test.
fn has_test(text: &str, name: &str) -> bool {
    let Some(at) = text.find(&format!("fn {name}(")) else { return false };
    let attributes = text[..at].rsplit('\n').skip(1).take_while(|line| !line.trim().is_empty());
    // `#[apply(…)]` stands for the cases of a template.
    let makes_a_test =
        |line: &str| line.starts_with("#[apply(") || line.starts_with("#[") && line.contains("test");
    attributes.map(str::trim).any(makes_a_test)
}

#[test]
fn security_page_names_tests_that_exist() {
    let page = fs::read_to_string(file("docs/security.md")).expect("the page is part of the repository");
    let mut modules_found = modules("src", &file("src"));
    modules_found.extend(modules("tests/it", &file("tests/it")));
    let name = Regex::new("`((?:[a-z_0-9]+::)+[a-z_0-9]+)`").expect("a pattern");
    let mut named = 0;
    for found in name.captures_iter(&page) {
        let (module, function) = found[1].rsplit_once("::").expect("a module and a name");
        let is_its = |known: &str| known == module || module.strip_suffix("::tests") == Some(known);
        let exists = modules_found.iter().any(|(known, text)| is_its(known) && has_test(text, function));
        assert!(exists, "docs/security.md: there is no test {}", &found[1]);
        named += 1;
    }
    assert!(named > 80, "the page names {named} tests");
}
