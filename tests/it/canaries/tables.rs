//! The contents of a database, column by column, as text.

use std::path::PathBuf;

use sqlx::{Connection, PgConnection, SqliteConnection};

/// A database.
pub enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

/// A column and its values, one a line.
pub struct Column {
    pub table: String,
    pub name: String,
    pub values: String,
}

impl Place {
    /// Return every column of every table and view.
    pub async fn columns(&self) -> Vec<Column> {
        match self {
            Place::Sqlite(file) => of_sqlite(&format!("sqlite:{}", file.display())).await,
            Place::Postgres(url) => of_postgres(url).await,
        }
    }
}

/// As literals of SQL: a blob is in hexadecimal.
async fn of_sqlite(url: &str) -> Vec<Column> {
    let mut connection = SqliteConnection::connect(url).await.expect("the file is there");
    let names = "select m.name, c.name from sqlite_master m cross join pragma_table_xinfo(m.name) c
                 where m.type in ('table', 'view')";
    let names: Vec<(String, String)> =
        sqlx::query_as(names).fetch_all(&mut connection).await.expect("the tables are listed");
    let mut columns = Vec::new();
    for (table, name) in names {
        let query = format!(r#"select quote("{name}") from "{table}""#);
        let values: Vec<String> =
            sqlx::query_scalar(&query).fetch_all(&mut connection).await.expect("a column can be read");
        columns.push(Column { table, name, values: values.join("\n") });
    }
    columns
}

async fn of_postgres(url: &str) -> Vec<Column> {
    let mut connection = PgConnection::connect(url).await.expect("PostgreSQL answers");
    let names = "select table_name::text, column_name::text from information_schema.columns
                 where table_schema = 'public'";
    let names: Vec<(String, String)> =
        sqlx::query_as(names).fetch_all(&mut connection).await.expect("the tables are listed");
    let mut columns = Vec::new();
    for (table, name) in names {
        let query = format!(r#"select "{name}"::text from "{table}" where "{name}" is not null"#);
        let values: Vec<String> =
            sqlx::query_scalar(&query).fetch_all(&mut connection).await.expect("a column can be read");
        columns.push(Column { table, name, values: values.join("\n") });
    }
    columns
}
