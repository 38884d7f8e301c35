//! Attachments: uploads with their ids, and the fetch of an asset from its URL.
//!
//! Nothing is fetched: the URL's path says whether Meta could. Never here: the assets.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::refusal::{FETCH_TEXT, PlayedError, SLOW_VIDEO, UNFETCHABLE, UNKNOWN_ATTACHMENT};
use super::request::{AskedAsset, AssetSource};

/// URLs whose fetches are counted.
const MOST_URLS: usize = 10_000;
/// Uploads that are kept; the oldest end first.
const MOST_UPLOADS: usize = 100_000;
/// Attachment ids look like Meta's: 16 digits.
const FIRST_ID: u64 = 1_857_777_000_000_000;

/// The rules, as `PUT /simulator/uploads` gives them.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct UploadRules {
    /// How long Meta takes to fetch an asset.
    pub fetch_ms: u64,
}

#[derive(Debug, Serialize)]
struct Upload {
    attachment_id: String,
    /// The tag of the token.
    token: String,
    account: String,
    kind: &'static str,
    url: String,
    created_ms: u64,
    expired: bool,
    uses: u64,
}

#[derive(Debug, Default)]
pub(super) struct Uploads {
    rules: UploadRules,
    /// By number; the id is [`FIRST_ID`] and the number.
    uploads: BTreeMap<u64, Upload>,
    last: u64,
    calls: u64,
    fetches: BTreeMap<String, u64>,
}

/// The line that uploads or sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub tag: &'a str,
    pub account: &'a str,
}

impl Uploads {
    pub fn put(&mut self, rules: UploadRules) {
        self.rules = rules;
    }

    /// Forget all uploads and fetches; ids are never given twice.
    pub fn reset(&mut self) {
        *self = Uploads { rules: self.rules, last: self.last, ..Uploads::default() };
    }

    /// Return how long Meta takes to fetch an asset.
    pub fn fetch_time(&self) -> Duration {
        Duration::from_millis(self.rules.fetch_ms)
    }

    /// Upload an asset, and return its id.
    pub fn upload(
        &mut self,
        owner: Owner<'_>,
        kind: &'static str,
        url: &str,
        now: u64,
    ) -> Result<String, PlayedError> {
        self.calls += 1;
        self.fetch(url)?;
        self.last += 1;
        let attachment_id = (FIRST_ID + self.last).to_string();
        if self.uploads.len() >= MOST_UPLOADS {
            self.uploads.pop_first();
        }
        self.uploads.insert(
            self.last,
            Upload {
                attachment_id: attachment_id.clone(),
                token: owner.tag.to_owned(),
                account: owner.account.to_owned(),
                kind,
                url: url.to_owned(),
                created_ms: now,
                expired: false,
                uses: 0,
            },
        );
        Ok(attachment_id)
    }

    /// Take the asset of a message: fetch its URL, or use its upload.
    pub fn take(&mut self, account: &str, asset: &AskedAsset<'_>) -> Result<(), PlayedError> {
        match &asset.source {
            AssetSource::Url(url) => self.fetch(url),
            AssetSource::Id(id) => {
                let upload = number(id).and_then(|number| self.uploads.get_mut(&number));
                let upload = upload
                    .filter(|upload| !upload.expired && upload.account == account)
                    .ok_or(UNKNOWN_ATTACHMENT)?;
                upload.uses += 1;
                Ok(())
            }
        }
    }

    fn fetch(&mut self, url: &str) -> Result<(), PlayedError> {
        let times = match self.fetches.get_mut(url) {
            Some(times) => {
                *times += 1;
                *times
            }
            None => {
                if self.fetches.len() < MOST_URLS {
                    self.fetches.insert(url.to_owned(), 1);
                }
                1
            }
        };
        let parsed = url::Url::parse(url).ok();
        let path = parsed.as_ref().map_or("", url::Url::path);
        if path.contains("unfetchable-once") {
            return if times == 1 { Err(UNFETCHABLE) } else { Ok(()) };
        }
        for (word, error) in
            [("unfetchable", UNFETCHABLE), ("slow-video", SLOW_VIDEO), ("fetch-text", FETCH_TEXT)]
        {
            if path.contains(word) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// End an upload, or all, as Meta does after 90 days; return how many.
    pub fn expire(&mut self, id: Option<&str>) -> usize {
        let is_meant = |upload: &Upload| id.is_none_or(|id| upload.attachment_id == id) && !upload.expired;
        let mut ended = 0;
        for upload in self.uploads.values_mut().filter(|upload| is_meant(upload)) {
            upload.expired = true;
            ended += 1;
        }
        ended
    }

    pub fn listed(&self) -> Value {
        json!({
            "uploads": self.uploads.values().collect::<Vec<_>>(),
            "calls": self.calls,
            "fetches": self.fetches,
            "fetch_ms": self.rules.fetch_ms,
        })
    }
}

fn number(id: &str) -> Option<u64> {
    id.parse::<u64>().ok()?.checked_sub(FIRST_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner<'_> = Owner { tag: "tag", account: "1001" };

    fn by_id(id: &str) -> AskedAsset<'_> {
        AskedAsset { kind: "image", source: AssetSource::Id(id.into()) }
    }

    fn by_url(url: &str) -> AskedAsset<'_> {
        AskedAsset { kind: "image", source: AssetSource::Url(url.into()) }
    }

    #[test]
    fn id_belongs_to_its_account_until_its_end() {
        let mut uploads = Uploads::default();
        let id = uploads.upload(OWNER, "image", "https://example.com/a", 7).expect("it can be fetched");
        assert_eq!(uploads.take("1001", &by_id(&id)), Ok(()));
        assert_eq!(uploads.take("1002", &by_id(&id)), Err(UNKNOWN_ATTACHMENT));
        assert_eq!(uploads.take("1001", &by_id("7")), Err(UNKNOWN_ATTACHMENT));
        assert_eq!((uploads.expire(Some(&id)), uploads.expire(None)), (1, 0));
        assert_eq!(uploads.take("1001", &by_id(&id)), Err(UNKNOWN_ATTACHMENT));
        let again = uploads.upload(OWNER, "image", "https://example.com/a", 8);
        assert!(again.is_ok_and(|again| again != id));
        assert_eq!(uploads.listed()["uploads"][0]["uses"], 1);
        assert_eq!(uploads.listed()["fetches"]["https://example.com/a"], 2);
    }

    #[test]
    fn path_says_whether_meta_can_fetch() {
        let mut uploads = Uploads::default();
        for (url, expected) in [
            ("https://example.com/a.png?unfetchable", Ok(())),
            ("https://example.com/unfetchable.png", Err(UNFETCHABLE)),
            ("https://example.com/slow-video.mp4", Err(SLOW_VIDEO)),
            ("https://example.com/fetch-text.png", Err(FETCH_TEXT)),
            ("https://example.com/unfetchable-once.png", Err(UNFETCHABLE)),
            ("https://example.com/unfetchable-once.png", Ok(())),
        ] {
            assert_eq!(uploads.take("1", &by_url(url)), expected, "{url}");
        }
    }
}
