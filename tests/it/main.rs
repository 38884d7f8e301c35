//! All integration tests, as one binary.

// mod cli; // <- enable together with the SQLite and PostgreSQL stores
