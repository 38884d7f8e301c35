//! `line`.

use serde_json::{Value, json};

use super::program::Program;

const PAT: &str = "EAAverysecretpagetoken";

fn only_line(program: &Program) -> Value {
    let mut listed = program.json("line list");
    let lines = listed["lines"].as_array_mut().expect("a list");
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

#[test]
fn listing_shows_all_but_the_page_token() {
    let program = Program::new();
    program.json("account add --name Example");
    let added = program.run_with_input(
        "--json line add --account 1 --class messenger --page-id 1234567890 --ig-account-id 17 --id 42 \
         --name Shop --rate-text 20 --pat-stdin",
        &format!("{PAT}\r\n"),
    );
    assert_eq!(added.json(), json!({"v8l_id": 42}));
    let expected = json!({
        "v8l_id": 42, "cdcs_id": 1, "v8l_class": "messenger", "v8l_name": "Shop", "v8l_active": true,
        "has_pat": true, "v8l_fb_page_id": "1234567890", "v8l_ig_account_id": "17", "v8l_graph": null,
        "v8l_meta_app": null, "v8l_pat_expires_at": null, "v8l_pat_error": null, "v8l_rate_text": 20,
        "v8l_rate_media": null, "v8l_paused_until": null, "v8l_pause_reason": null, "state": "sending",
        "budget_use": null, "limited_to": null, "day_budget": null,
    });
    assert_eq!(only_line(&program), expected);
    let table = program.run("line list").stdout;
    assert!(table.contains("Shop") && table.contains("sending") && table.contains("(10)"), "{table}");
    for ran in [added, program.run("line list"), program.run("line list --json")] {
        assert!(!ran.everything().contains(PAT));
    }
}

#[tokio::test]
async fn page_token_is_stored_without_its_line_end() {
    use secrecy::ExposeSecret;
    let program = Program::new();
    program.json("account add --name Example");
    let file = program.file("pat.txt", &format!("  {PAT}\n"));
    let command = format!("line add --account 1 --class instagram --pat-file {}", file.display());
    assert_eq!(program.run(&command).code, 0);
    let store = program.store().await;
    let lines = store.all_lines().await.expect("the store answers");
    let token = lines[0].page_token.as_ref().expect("it is set");
    assert_eq!(token.expose_secret(), PAT);
    store.close().await;
}

#[test]
fn malformed_page_token_is_hidden_and_adds_no_line() {
    let program = Program::new();
    program.json("account add --name Example");
    for wrong in ["", "\n", "EAAone EAAtwo", "EAAone\nEAAtwo", "EAA\u{7}bell"] {
        let ran =
            program.run_with_input("line add --account 1 --class messenger --page-id 1 --pat-stdin", wrong);
        assert!(ran.error().contains("page access token"), "{}", ran.stderr);
        assert!(!ran.everything().contains("EAA"), "{}", ran.stderr);
    }
    let missing = program.run("line add --account 1 --class messenger --page-id 1 --pat-file missing.txt");
    assert!(missing.error().contains("missing.txt"));
    assert_eq!(program.json("line list"), json!({"lines": []}));
}

#[test]
fn messenger_line_needs_a_page_id() {
    let program = Program::new();
    let ran = program.run_with_input("line add --account 1 --class messenger --pat-stdin", PAT);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("--page-id"), "{}", ran.stderr);
}

#[test]
fn unknown_account_and_taken_id_are_errors() {
    let program = Program::new();
    let line = program.add_line(PAT);
    let add = "line add --class messenger --page-id 1 --pat-stdin --account";
    program.run_with_input(&format!("{add} 77"), PAT).error();
    program.run_with_input(&format!("{add} 1 --id {line}"), PAT).error();
}

#[test]
fn pauses_for_a_while_and_resumes() {
    let program = Program::new();
    let line = program.add_line(PAT);
    let paused = program.json(&format!("line pause {line} --for 30m --reason maintenance"));
    let state = paused["state"].as_str().expect("a text");
    assert!(state.starts_with("paused until 2") && state.ends_with("(maintenance)"), "{state}");
    assert_eq!(only_line(&program)["v8l_pause_reason"], "maintenance");
    let list = program.run("line list").stdout;
    assert!(list.lines().nth(1).is_some_and(|row| row.ends_with("  paused")), "{list}");
    assert!(list.ends_with(&format!("\n\nline {line} is {state}\n")), "{list}");
    let resumed = program.json(&format!("line resume {line}"));
    assert_eq!(resumed["state"], "sending");
    assert_eq!(only_line(&program)["v8l_paused_until"], Value::Null);
}

#[test]
fn pause_without_length_lasts_until_resumed() {
    let program = Program::new();
    let line = program.add_line(PAT);
    program.json(&format!("line pause {line}"));
    assert_eq!(only_line(&program)["state"], "paused until resumed (by an operator)");
}

#[tokio::test]
async fn replaces_a_page_token() {
    use secrecy::ExposeSecret;
    let program = Program::new();
    let line = program.add_line(PAT);
    let ran = program.run_with_input(&format!("line set-pat {line} --pat-stdin"), "EAAother\n");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!ran.everything().contains("EAA"));
    let store = program.store().await;
    let lines = store.all_lines().await.expect("the store answers");
    assert_eq!(lines[0].page_token.as_ref().expect("it is set").expose_secret(), "EAAother");
    store.close().await;
}

#[test]
fn commands_name_a_line_that_does_not_exist() {
    let program = Program::new();
    program.json("migrate");
    for command in ["line pause 9", "line resume 9", "line set-pat 9 --pat-stdin"] {
        assert!(program.run_with_input(command, PAT).error().contains("no line 9"), "{command}");
    }
}

#[test]
fn malformed_duration_is_wrong_usage() {
    let program = Program::new();
    for length in ["30", "0s", "soon", "100000y"] {
        assert_eq!(program.run(&format!("line pause 1 --for {length}")).code, 2, "{length}");
    }
}
