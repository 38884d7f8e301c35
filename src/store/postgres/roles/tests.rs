use super::*;

fn described() -> Description {
    let relation = |name: &str, kind, is_to_move| Relation { name: name.into(), kind, is_to_move };
    Description {
        database: "dispatch".into(),
        schema: "\"Messages\"".into(),
        relations: vec![
            relation("cdls", "table", true),
            relation("cdls_12", "table", false),
            relation("cd_v8_line", "table", false),
            relation("cdls_id_seq", "sequence", true),
        ],
        functions: vec![Function {
            name: "cdls_drop_range".into(),
            arguments: "bigint, bigint".into(),
            is_to_move: true,
        }],
        open_columns: "v8l_id, v8l_has_token".into(),
        owners: vec!["dispatch_app".into()],
    }
}

#[test]
fn statements_name_roles_owners_and_rights() {
    let statements = described().statements();
    let position = |wanted: &str| {
        let found = statements.iter().position(|statement| statement == wanted);
        found.unwrap_or_else(|| panic!("{wanted} is missing in {statements:#?}"))
    };
    position(
        "grant connect on database dispatch to meta_dispatch_ingest, meta_dispatch_worker, \
              meta_dispatch_migrate, meta_dispatch_dashboard",
    );
    position("revoke create on schema \"Messages\" from public");
    let member = position("grant meta_dispatch_migrate to dispatch_app");
    assert!(member < position("alter table \"Messages\".cdls owner to meta_dispatch_migrate"));
    position("alter function \"Messages\".cdls_drop_range(bigint, bigint) owner to meta_dispatch_migrate");
    position("grant select, insert, update on table \"Messages\".cdls_12 to meta_dispatch_ingest");
    position("grant usage, select on sequence \"Messages\".cdls_id_seq to meta_dispatch_ingest");
    assert!(!statements.iter().any(|statement| statement.contains("cdls_12 owner")));
}

#[test]
fn token_is_granted_to_the_worker_alone() {
    let of_lines = |role: &str| {
        let statements = described().of_rights();
        let found = statements.into_iter().find(|s| s.contains(".cd_v8_line to ") && s.ends_with(role));
        found.expect("each role reads lines")
    };
    for role in [INGEST, DASHBOARD] {
        assert!(of_lines(role).starts_with("grant select (v8l_id, v8l_has_token) on "), "{}", of_lines(role));
    }
    assert!(
        of_lines(WORKER)
            .starts_with("grant select, update (v8l_paused_until, v8l_pause_reason, v8l_wa_api_key, ")
    );
}
