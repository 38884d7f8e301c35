//! The ground of a run: servers, and a database and a virtual host of its own.

#![allow(clippy::print_stderr)]

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool};
use testkit::process::{Output, Running, free_address};

use crate::arguments::RunArguments;
use crate::database::{self, Statements};
use crate::measure::System;
use crate::process;

/// The addresses by which the processes of a run find each other.
pub struct Ground {
    pub program: PathBuf,
    pub database_url: String,
    pub amqp_url: String,
    pub servers: Vec<(&'static str, i32)>,
    /// SQL to run on the database once its tables exist.
    pub sql: Option<String>,
    pub statements: Statements,
}

/// Make a database and a virtual host, run, and drop both.
pub async fn on_ground<Figures>(
    arguments: &RunArguments,
    statements: Statements,
    run: impl AsyncFnOnce(&Ground) -> anyhow::Result<(System, Figures)>,
) -> anyhow::Result<Figures> {
    let name = format!("bench_{}_{}", std::process::id(), time::OffsetDateTime::now_utc().unix_timestamp());
    let mut admin = PgConnection::connect(&arguments.database_url).await?;
    sqlx::raw_sql(&format!("create database {name}")).execute(&mut admin).await?;
    rabbitmqctl(arguments, &["add_vhost", &name]).await?;
    rabbitmqctl(arguments, &["set_permissions", "-p", &name, "guest", ".*", ".*", ".*"]).await?;

    let mut database_url = reqwest::Url::parse(&arguments.database_url)?;
    database_url.set_path(&name);
    let statements = match database::prepare(database_url.as_str(), &name, statements).await {
        Ok(()) => statements,
        Err(error) => {
            eprintln!("PostgreSQL's own counters cannot be read: {error:#}");
            Statements::Uncounted
        }
    };
    let mut amqp_url = reqwest::Url::parse(&arguments.amqp_url)?;
    amqp_url.set_path(&name);
    let ground = Ground {
        program: arguments.program.canonicalize().context("--program")?,
        servers: vec![
            ("postgresql", process::listener(database_url.port().unwrap_or(5432))?),
            ("rabbitmq", process::listener(amqp_url.port().unwrap_or(5672))?),
        ],
        database_url: database_url.into(),
        amqp_url: amqp_url.into(),
        sql: arguments.sql.clone(),
        statements,
    };
    let outcome = match run(&ground).await {
        Ok((system, figures)) => system.stop().await.map(|()| figures),
        Err(error) => Err(error),
    };
    sqlx::raw_sql(&format!("drop database {name} with (force)")).execute(&mut admin).await?;
    rabbitmqctl(arguments, &["delete_vhost", &name]).await?;
    outcome
}

async fn rabbitmqctl(arguments: &RunArguments, command: &[&str]) -> anyhow::Result<()> {
    let status = tokio::process::Command::new(&arguments.rabbitmqctl)
        .arg("-q")
        .args(command)
        .stdout(Stdio::null())
        .status()
        .await
        .context("rabbitmqctl")?;
    anyhow::ensure!(status.success(), "rabbitmqctl {command:?} failed");
    Ok(())
}

impl Ground {
    /// Open the benchmark's own connections; their statements are not counted.
    pub async fn connect(&self) -> anyhow::Result<PgPool> {
        let options: PgConnectOptions = self.database_url.parse()?;
        let options = match self.statements {
            Statements::Counted => options.options([("pg_stat_statements.track", "none")]),
            Statements::Uncounted => options,
        };
        Ok(PgPool::connect_with(options).await?)
    }
}

/// Start the stand-in for Graph; return its address too.
pub async fn start_graph(latency: u64) -> anyhow::Result<(Running, String)> {
    let address = free_address()?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(["graph", "--listen", &address, "--latency", &latency.to_string()]);
    let mut graph = Running::start_group("graph", &mut command, Output::Shown)?;
    graph.listens(&address).await?;
    Ok((graph, address))
}
