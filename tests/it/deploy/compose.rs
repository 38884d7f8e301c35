//! compose.yaml: the limits, the secrets and the networks of each container.

use std::fs;

use super::yaml::{self, Yaml};
use super::{file, ran};

const PROGRAM: [&str; 5] = ["ingest", "worker", "migrate", "operator", "simulator"];
const SERVERS: [&str; 2] = ["postgres", "rabbitmq"];

/// The compose file as a whole.
pub fn whole() -> Yaml {
    yaml::read(&fs::read_to_string(file("compose.yaml")).expect("the file is part of the repository"))
}

pub fn services(whole: &Yaml) -> &[(String, Yaml)] {
    let services = whole.get("services").expect("there are services").entries();
    let names: Vec<&str> = services.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [&PROGRAM[..], &SERVERS[..]].concat(), "a new service belongs into this test");
    services
}

fn texts<'a>(service: &'a Yaml, key: &str) -> Vec<&'a str> {
    service.get(key).map(Yaml::texts).unwrap_or_default()
}

/// The variables of a service.
pub fn environment(service: &Yaml) -> Vec<(&str, &str)> {
    let entries = service.get("environment").map(Yaml::entries).unwrap_or_default();
    entries.iter().map(|(name, value)| (name.as_str(), value.text())).collect()
}

#[test]
fn each_service_is_confined() {
    for (name, service) in services(&whole()) {
        let word = |key: &str| service.get(key).unwrap_or_else(|| panic!("{name} has no {key}")).text();
        assert_eq!(word("read_only"), "true", "{name}");
        assert_eq!(texts(service, "cap_drop"), ["ALL"], "{name}");
        assert_eq!(texts(service, "security_opt"), ["no-new-privileges:true"], "{name}");
        for key in
            ["privileged", "cap_add", "devices", "pid", "ipc", "network_mode", "userns_mode", "env_file"]
        {
            assert!(service.get(key).is_none(), "{name} has {key}");
        }
        assert!(!word("user").starts_with('0') && word("user").contains(':'), "{name} runs as root");
        assert!(word("pids_limit").parse::<u32>().is_ok_and(|limit| limit > 0), "{name}");
        assert!(word("mem_limit").ends_with('g'), "{name}");
        let rooms = texts(service, "tmpfs");
        assert!(rooms.iter().any(|room| room.starts_with("/tmp:")), "{name} has no /tmp");
        for room in rooms {
            let options: Vec<&str> = room.split_once(':').expect("options").1.split(',').collect();
            let has = |option: &str| options.iter().any(|given| given.starts_with(option));
            assert!(has("size=") && has("nosuid") && has("nodev"), "{name}: {room}");
        }
        let logging = service.get("logging").and_then(|logging| logging.get("options"));
        assert!(
            logging.is_some_and(|options| options.get("max-size").is_some()),
            "{name}: its log has no end"
        );
    }
}

#[test]
fn files_of_the_host_are_read_only() {
    let whole = whole();
    let volumes = whole.get("volumes").expect("there are volumes").entries();
    for (name, service) in services(&whole) {
        for mount in texts(service, "volumes") {
            let parts: Vec<&str> = mount.split(':').collect();
            let is_volume = volumes.iter().any(|(volume, _)| volume == parts[0]);
            assert!(is_volume || parts.get(2) == Some(&"ro"), "{name}: {mount}");
            assert!(is_volume || file(parts[0]).exists(), "{name}: {mount}");
        }
    }
}

#[test]
fn no_secret_stands_in_it() {
    for (name, service) in services(&whole()) {
        for (variable, value) in environment(service) {
            let words = ["PASS", "SECRET", "KEY", "TOKEN", "URL", "COOKIE"];
            let is_secret =
                words.iter().any(|word| variable.contains(word)) && !variable.ends_with("BASE_URL");
            let is_a_file = variable.ends_with("_FILE") && value.starts_with("/run/secrets/");
            assert!(!is_secret || is_a_file, "{name}: {variable} is no file of a secret");
            assert!(!value.contains('@'), "{name}: {variable} has a password");
        }
        let command = texts(service, "command").join(" ");
        assert!(!command.contains("password") && !command.contains('@'), "{name}: {command}");
    }
}

#[test]
fn each_secret_goes_to_its_readers_alone() {
    let whole = whole();
    let secrets = whole.get("secrets").expect("there are secrets").entries();
    for (name, described) in secrets {
        let path = described.get("file").expect("each is a file").text();
        assert_eq!(path, format!("./deploy/secrets/{name}"));
    }
    let readers = |secret: &str| -> Vec<&str> {
        let reads = |service: &Yaml| texts(service, "secrets").contains(&secret);
        services(&whole).iter().filter(|(_, service)| reads(service)).map(|(name, _)| name.as_str()).collect()
    };
    // The services that can open page tokens, and those that administer the database.
    assert_eq!(readers("security-key"), ["worker", "operator"]);
    assert_eq!(readers("postgres-password"), ["postgres"]);
    assert_eq!(readers("migrate-database-url"), ["migrate", "operator"]);
    for (name, _) in secrets {
        assert!(!readers(name).is_empty(), "{name} has no reader");
    }
    // Each file that a container is told of is given to it, and nothing more.
    for (name, service) in services(&whole) {
        let given = texts(service, "secrets");
        let told: Vec<&str> = environment(service)
            .iter()
            .filter_map(|(_, value)| value.strip_prefix("/run/secrets/"))
            .collect();
        for secret in &told {
            assert!(given.contains(secret), "{name} is not given {secret}");
        }
        for secret in &given {
            assert!(secrets.iter().any(|(known, _)| known == secret), "{name}: there is no {secret}");
            let is_read = told.contains(secret) || mounted(service).contains(&format!("/{secret}"));
            assert!(is_read, "{name} does not need {secret}");
        }
    }
}

/// The texts of the files that a service mounts from the repository.
fn mounted(service: &Yaml) -> String {
    let sources = texts(service, "volumes").into_iter().filter_map(|mount| mount.split(':').next());
    sources
        .filter(|source| source.starts_with("./"))
        .map(|source| fs::read_to_string(file(source)).unwrap())
        .collect()
}

#[test]
fn servers_are_reached_by_the_processes_alone() {
    let whole = whole();
    let networks = whole.get("networks").expect("there are networks");
    for (name, service) in services(&whole) {
        let joined = texts(service, "networks");
        let is_internal = |network: &&str| {
            let found =
                networks.get(network).unwrap_or_else(|| panic!("{name}: there is no network {network}"));
            found.get("internal").is_some_and(|value| value.text() == "true")
        };
        assert!(!joined.is_empty(), "{name} is in the default network");
        if SERVERS.contains(&name.as_str()) {
            assert!(joined.iter().all(is_internal) && service.get("ports").is_none(), "{name}");
        }
        for port in texts(service, "ports") {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to other machines");
        }
    }
    let of = |name: &str| {
        let (_, service) = services(&whole).iter().find(|(known, _)| known == name).expect("it is there");
        texts(service, "networks")
    };
    assert!(!of("ingest").contains(&"graph"), "callers reach Graph's side");
    assert!(!of("worker").contains(&"callers"), "callers reach the worker");
}

/// The images of a release, by name.
fn images() -> Vec<(String, String)> {
    let text = fs::read_to_string(file("deploy/images.env")).expect("the file is part of the repository");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split_once('=').expect("NAME=IMAGE"))
        .map(|(name, image)| (name.into(), image.into()))
        .collect()
}

#[test]
fn each_image_has_a_version_and_a_place_for_its_digest() {
    let whole = whole();
    let compose = fs::read_to_string(file("compose.yaml")).unwrap();
    let dockerfile = fs::read_to_string(file("Dockerfile")).unwrap();
    for (name, image) in images() {
        let tag = image.split('@').next().expect("a first part");
        assert!(tag.contains(':') && !tag.ends_with(":latest"), "{name}: {image} has no version");
        assert!(
            compose.contains(&format!("${{{name}:-{tag}}}")),
            "compose.yaml: {name} is not {tag} by default"
        );
        let is_built_with = ["RUST_IMAGE", "BASE_IMAGE"].contains(&name.as_str());
        assert!(!is_built_with || dockerfile.contains(&format!("ARG {name}={tag}\n")), "Dockerfile: {name}");
    }
    for (name, service) in services(&whole) {
        let image = service.get("image").expect("each has an image").text();
        let is_ours = image == "${META_DISPATCH_IMAGE:-meta-dispatch}" && service.get("build").is_some();
        let is_named = images().iter().any(|(known, _)| image.starts_with(&format!("${{{known}:-")));
        assert!(is_ours || is_named, "{name}: {image} is not in deploy/images.env");
    }
    for line in dockerfile.lines().filter(|line| line.starts_with("FROM ")) {
        assert!(line.starts_with("FROM ${"), "{line}: not in deploy/images.env");
    }
    // The program's image ends as a user without rights, and tells whether it works.
    let last = dockerfile.rsplit("FROM ").next().expect("a last stage");
    assert!(
        last.contains("\nUSER 65532:65532\n")
            && last.contains("\"/usr/local/bin/meta-dispatch\", \"health\"")
    );
    assert!(!last.contains("\nRUN "), "a shell would be in the image");
}

#[test]
fn release_refuses_images_without_digest() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let images = folder.path().join("images.env");
    let check = |image: &str| {
        fs::write(&images, format!("# a comment\nBASE_IMAGE={image}\n")).expect("the folder can be written");
        let mut command = std::process::Command::new(file("deploy/image"));
        ran(command.arg("check").env("IMAGES", &images))
    };
    let digest = "0123456789abcdef".repeat(4);
    assert!(check(&format!("debian:12@sha256:{digest}")).status.success());
    for image in ["debian:12", "debian@sha256:0123", "debian:12@md5:0123"] {
        let refused = check(image);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && told.contains("BASE_IMAGE is"), "{image}: {told}");
    }
}
