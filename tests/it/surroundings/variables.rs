//! Variables of the environment that miss a setting's name.

use rstest::rstest;

use super::program;

const URL: &str = "postgres://nobody@127.0.0.1:1/log";

#[rstest]
#[tokio::test]
async fn near_misses_are_refused_by_every_command(
    #[values("migrate", "check", "account list", "health", "openapi", "serve", "demo --once")] command: &str,
    #[values(
        "META_DISPATCH_DATABASE__URL",
        "META_DISPATCH_DATABASE_URL",
        "meta_dispatch__database__url",
        "META_DISPATCH__DATABSE__URL"
    )]
    name: &str,
) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let arguments: Vec<&str> = command.split(' ').collect();
    let refused =
        program(&folder).variable(name, URL).run(&arguments, None).await.expect_err("it is refused");
    let refused = refused.to_string();
    assert!(refused.contains(&format!("environment variable {name}: ")), "{refused}");
    assert!(refused.contains("write META_DISPATCH__DATABASE__URL"), "{refused}");
    let made = std::fs::read_dir(folder.path()).expect("the folder is there").count();
    assert_eq!(made, 0, "no database is made");
}

#[tokio::test]
async fn names_of_others_are_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let names = [
        "META_DISPATCH_TSID",
        "META_DISPATCH_SERVICE_HOST",
        "META_DISPATCH_SERVICE_PORT",
        "META_DISPATCH_SERVICE_PORT_HTTP",
        "META_DISPATCH_PORT",
        "META_DISPATCH_PORT_8080_TCP",
        "META_DISPATCH_PORT_8080_TCP_ADDR",
    ];
    let program = names.iter().fold(program(&folder), |program, name| program.variable(name, "10.0.0.7"));
    program.run(&["openapi"], None).await.expect("the command works");
}
