//! Meta's apps, and the lines that belong to them or send for a page.

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::directory::violated;
use super::error::failed;
use super::rows;
use crate::channel::Class;
use crate::domain::LineId;
use crate::store::{AppField, AppRecord, AppStore, NewApp, StoreError};

#[async_trait]
impl AppStore for PostgresStore {
    async fn apps(&self) -> Result<Vec<AppRecord>, StoreError> {
        let found = sqlx::query(
            "select meta_app_id, name, secret, verify_token, created_at from meta_app order by meta_app_id",
        )
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        found.iter().map(record).collect()
    }

    async fn put_app(&self, app: &NewApp) -> Result<bool, StoreError> {
        // A row that this statement inserts was deleted by no transaction; an updated one was locked by this one.
        sqlx::query_scalar(
            "insert into meta_app (meta_app_id, name, secret, verify_token) values ($1, $2, $3, $4)
             on conflict (meta_app_id) do update set name = coalesce(excluded.name, meta_app.name),
                 secret = excluded.secret, verify_token = excluded.verify_token
             returning xmax = 0",
        )
        .bind(&app.id)
        .bind(&app.name)
        .bind(app.secret.expose_secret())
        .bind(app.verify_token.expose_secret())
        .fetch_one(&self.background)
        .await
        .map_err(failed)
    }

    async fn remove_app(&self, app: &str) -> Result<bool, StoreError> {
        sqlx::query("delete from meta_app where meta_app_id = $1")
            .bind(app)
            .execute(&self.background)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(|error| violated(error, &has_lines(app), &has_lines(app)))
    }

    async fn swap_app_secret(
        &self,
        app: &str,
        field: AppField,
        old: &SecretString,
        new: &SecretString,
    ) -> Result<bool, StoreError> {
        let statement = match field {
            AppField::Secret => "update meta_app set secret = $3 where meta_app_id = $1 and secret = $2",
            AppField::VerifyToken => {
                "update meta_app set verify_token = $3 where meta_app_id = $1 and verify_token = $2"
            }
        };
        sqlx::query(statement)
            .bind(app)
            .bind(old.expose_secret())
            .bind(new.expose_secret())
            .execute(&self.background)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(failed)
    }

    async fn set_line_app(&self, line: LineId, app: Option<&str>) -> Result<bool, StoreError> {
        let missing = format!("there is no app {}", app.unwrap_or_default());
        sqlx::query("update cd_v8_line set v8l_meta_app = $2 where v8l_id = $1")
            .bind(line.0)
            .bind(app)
            .execute(&self.background)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(|error| violated(error, &missing, &missing))
    }

    async fn lines_of_pages(
        &self,
        class: Class,
        pages: &[String],
    ) -> Result<Vec<(String, LineId)>, StoreError> {
        let found: Vec<(String, i64)> = sqlx::query_as(
            "select p.page, l.v8l_id from cd_v8_line l, lateral (
                 select btrim(case when $1::boolean then l.v8l_fb_page_id else l.v8l_ig_account_id end) as page) p
             where l.v8l_class = $2 and p.page = any ($3::text[]) order by l.v8l_id",
        )
        .bind(class == Class::MESSENGER)
        .bind(class.as_str())
        .bind(pages)
        .fetch_all(&self.background)
        .await
        .map_err(failed)?;
        Ok(found.into_iter().map(|(page, line)| (page, LineId(line))).collect())
    }
}

fn has_lines(app: &str) -> String {
    format!("lines belong to app {app}: `line set V8L_ID --app none` takes a line away from it")
}

fn record(row: &PgRow) -> Result<AppRecord, StoreError> {
    let secret = |column| rows::get::<Option<String>>(row, column).map(|text| text.map(SecretString::from));
    Ok(AppRecord {
        id: rows::get(row, "meta_app_id")?,
        name: rows::get(row, "name")?,
        secret: secret("secret")?,
        verify_token: secret("verify_token")?,
        created_at: rows::get(row, "created_at")?,
    })
}
