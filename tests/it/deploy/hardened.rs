//! The program inside the limits of compose.yaml, without a container engine: deploy/hardened.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use meta_dispatch::simulator::{Simulator, SimulatorOptions};
use serde_json::{Value, json};
use testkit::process::{Output, Running, free_address};
use testkit::program::Program;

use super::{file, left_out, ran, stdout};
use crate::support::install_crypto;
use crate::support::pipeline::PAGE_TOKEN;

fn can_run() -> bool {
    let can = Command::new(file("deploy/hardened")).arg("--can-run").status().expect("bash runs").success();
    if !can {
        left_out("deploy/hardened (this machine does not let its users make namespaces)");
    }
    can
}

/// Run commands of a shell inside.
fn inside(commands: &str) -> std::process::Output {
    ran(Command::new(file("deploy/hardened")).args(["--tmp", "1m", "bash", "-c", commands]))
}

#[test]
fn nothing_but_tmp_can_be_written() {
    if !can_run() {
        return;
    }
    for path in ["/file", "/usr/file", "/etc/file", "/dev/file", "/proc/sys/vm/drop_caches"] {
        assert!(!inside(&format!("echo 1 > {path}")).status.success(), "{path} can be written");
    }
    assert!(inside("echo 1 > /tmp/file").status.success());
    assert!(!inside("head -c 2000000 /dev/zero > /tmp/file").status.success(), "/tmp has no end");
    assert!(!inside("cp /bin/true /tmp/program && /tmp/program").status.success(), "/tmp holds programs");
    assert!(
        !inside(&format!("ls {}", env!("CARGO_MANIFEST_DIR"))).status.success(),
        "other folders are seen"
    );
}

#[test]
fn no_capability_is_left_or_to_be_had() {
    if !can_run() {
        return;
    }
    let status = String::from_utf8(inside("cat /proc/self/status").stdout).expect("UTF-8");
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(value(set).trim_start_matches('0'), "", "{set}");
    }
    assert_eq!(value("NoNewPrivs:"), "1");
    assert!(value("Uid:").starts_with("65532"));
    assert!(!inside("unshare --user --map-root-user true").status.success(), "the program can be root again");
}

#[tokio::test(flavor = "multi_thread")]
async fn message_is_sent() {
    if !can_run() {
        return;
    }
    install_crypto();
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["data", "secrets"] {
        fs::create_dir(folder.path().join(name)).expect("the folder can be written");
    }
    let program = Program::new(env!("CARGO_BIN_EXE_meta-dispatch"));
    let key = folder.path().join("secrets/security-key");
    let generated: Value =
        serde_json::from_str(&program.run(&["--json", "key", "generate"], None).await.expect("a key"))
            .expect("JSON");
    fs::write(&key, generated["key"].as_str().expect("a text")).expect("the folder can be written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("modes can be set");

    // The account and the line, as an operator beside the container makes them.
    let outside = program
        .clone()
        .database(&format!("sqlite:{}", folder.path().join("data/log.db").display()))
        .with("security.key_file", key.to_str().expect("UTF-8"));
    let account =
        outside.run(&["--json", "account", "add", "--name", "Acme"], None).await.expect("it is added");
    let account: Value = serde_json::from_str(&account).expect("JSON");
    let line = ["line", "add", "--account", "1", "--class", "messenger", "--page-id", "1", "--pat-stdin"];
    outside.run(&line, Some(PAGE_TOKEN)).await.expect("it is added");

    let simulator = Simulator::start(SimulatorOptions::default()).expect("the simulator finds a port");
    let (http, admin) = (free_address().expect("a free port"), free_address().expect("a free port"));
    let part = |name: &str| folder.path().join(name).display().to_string();
    let (data, secrets) = (part("data"), part("secrets"));
    let executable = env!("CARGO_BIN_EXE_meta-dispatch");
    let mut command = Program::new(file("deploy/hardened"))
        .database("sqlite:/data/log.db")
        .graph(&simulator.base_url())
        .http(&http)
        .admin(&admin)
        .with("security.key_file", "/run/secrets/security-key")
        .command(&["--data", &data, "--secrets", &secrets, executable, "serve"]);
    let log = folder.path().join("printed.log");
    let mut running = Running::start("serve", &mut command, Output::AppendTo(&log)).expect("it runs");
    let printed = || fs::read_to_string(&log).unwrap_or_default();
    running.ready(&admin).await.unwrap_or_else(|error| panic!("{error}: {}", printed()));

    let answer = reqwest::Client::new()
        .post(format!("http://{http}/api/v2/MakeMessenger.php?wait=20"))
        .bearer_auth(account["tsid"].as_str().expect("a token"))
        .json(&json!({"app_id": 1, "dest": "ann", "mdata": "hello"}))
        .send()
        .await
        .expect("it answers");
    let answer: Value = answer.json().await.expect("answers are JSON");
    assert_eq!(answer["return"]["status_code"], 200, "{answer}: {}", printed());
    assert_eq!(simulator.delivered_to("ann"), 1);

    assert!(running.signal("TERM").expect("kill runs"));
    assert!(running.wait().await.expect("it can be waited for").success(), "{}", printed());
    assert!(!printed().contains("file with a secret is open"), "{}", printed());
    let version = stdout(Command::new(file("deploy/hardened")).args([executable, "--version"]));
    assert!(version.starts_with("meta-dispatch "), "{version}");
}
