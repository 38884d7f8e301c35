//! Meta's apps, and the lines that belong to them or send for a page.

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::error::ErrorKind;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::clock::Now;
use super::error::{begin, commit, failed};
use super::row::{get, readable, time};
use super::tokens::texts;
use crate::channel::Class;
use crate::domain::LineId;
use crate::store::{AppField, AppRecord, AppStore, NewApp, StoreError};

#[async_trait]
impl AppStore for SqliteStore {
    async fn apps(&self) -> Result<Vec<AppRecord>, StoreError> {
        let found = sqlx::query(
            "select meta_app_id, name, secret, verify_token, created_at from meta_app order by meta_app_id",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        Ok(readable(&found, record))
    }

    async fn put_app(&self, app: &NewApp) -> Result<bool, StoreError> {
        let (mut transaction, _) = begin(&self.writer).await?;
        let changed = sqlx::query(
            "update meta_app set name = coalesce(?2, name), secret = ?3, verify_token = ?4 where meta_app_id = ?1",
        )
        .bind(&app.id)
        .bind(&app.name)
        .bind(app.secret.expose_secret())
        .bind(app.verify_token.expose_secret())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        let is_new = changed.rows_affected() == 0;
        if is_new {
            sqlx::query(
                "insert into meta_app (meta_app_id, name, secret, verify_token, created_at)
                 values (?1, ?2, ?3, ?4, ?5)",
            )
            .bind(&app.id)
            .bind(&app.name)
            .bind(app.secret.expose_secret())
            .bind(app.verify_token.expose_secret())
            .bind(Now::read().text())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        commit(transaction).await?;
        Ok(is_new)
    }

    async fn remove_app(&self, app: &str) -> Result<bool, StoreError> {
        sqlx::query("delete from meta_app where meta_app_id = ?1")
            .bind(app)
            .execute(&self.writer)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(|error| {
                let has_lines = format!(
                    "lines belong to app {app}: `line set V8L_ID --app none` takes a line away from it"
                );
                named(error, has_lines)
            })
    }

    async fn swap_app_secret(
        &self,
        app: &str,
        field: AppField,
        old: &SecretString,
        new: &SecretString,
    ) -> Result<bool, StoreError> {
        let statement = match field {
            AppField::Secret => "update meta_app set secret = ?3 where meta_app_id = ?1 and secret = ?2",
            AppField::VerifyToken => {
                "update meta_app set verify_token = ?3 where meta_app_id = ?1 and verify_token = ?2"
            }
        };
        sqlx::query(statement)
            .bind(app)
            .bind(old.expose_secret())
            .bind(new.expose_secret())
            .execute(&self.writer)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(failed)
    }

    async fn set_line_app(&self, line: LineId, app: Option<&str>) -> Result<bool, StoreError> {
        sqlx::query("update cd_v8_line set v8l_meta_app = ?2 where v8l_id = ?1")
            .bind(line.0)
            .bind(app)
            .execute(&self.writer)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(|error| named(error, format!("there is no app {}", app.unwrap_or_default())))
    }

    async fn lines_of_pages(
        &self,
        class: Class,
        pages: &[String],
    ) -> Result<Vec<(String, LineId)>, StoreError> {
        let found: Vec<(String, i64)> = sqlx::query_as(
            "select page, v8l_id from (
                 select v8l_id, trim(cast(iif(?1, v8l_fb_page_id, v8l_ig_account_id) as text)) as page
                 from cd_v8_line where v8l_class = ?2)
             where page in (select value from json_each(?3)) order by v8l_id",
        )
        .bind(class == Class::MESSENGER)
        .bind(class.as_str())
        .bind(texts(pages))
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        Ok(found.into_iter().map(|(page, line)| (page, LineId(line))).collect())
    }
}

/// Return a violated reference in the words of an operator.
fn named(error: sqlx::Error, words: String) -> StoreError {
    match error.as_database_error().map(|database| database.kind()) {
        Some(ErrorKind::ForeignKeyViolation) => StoreError::Invalid(words),
        _ => failed(error),
    }
}

fn record(row: &SqliteRow) -> Result<AppRecord, StoreError> {
    let secret = |column| get::<Option<String>>(row, column).map(|text| text.map(SecretString::from));
    Ok(AppRecord {
        id: get(row, "meta_app_id")?,
        name: get(row, "name")?,
        secret: secret("secret")?,
        verify_token: secret("verify_token")?,
        created_at: time(row, "created_at")?,
    })
}
