//! A PostgreSQL server for the tests: the one that runs already, or one of this process's own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

/// A connection in a schema.
pub struct Session {
    pub client: Client,
    _driver: JoinSet<()>,
}

/// Where the server listens. A server of our own ends when its standard input does: with this process,
/// however that ends.
fn host() -> &'static str {
    static SERVER: OnceLock<(String, Option<Child>)> = OnceLock::new();
    let (host, _) = SERVER.get_or_init(|| {
        if let Ok(host) = std::env::var("SAGAD_BARRIER_PGHOST") {
            return (host, None);
        }
        let mut server = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/with-postgres"))
            .args(["sh", "-c", "echo \"$SAGAD_BARRIER_PGHOST\"; cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash runs");
        let mut host = String::new();
        BufReader::new(server.stdout.as_mut().expect("it is piped")).read_line(&mut host).unwrap();
        assert!(!host.is_empty(), "with-postgres said why");
        (host.trim().to_owned(), Some(server))
    });
    host
}

pub async fn connect(schema: &str) -> Session {
    let config = format!(
        "host={} user=postgres dbname=postgres options='-c search_path={schema} -c synchronous_commit=off'",
        host()
    );
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.expect("the server listens");
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // An error ends the connection; the client reports it.
        let _ = connection.await;
    });
    Session { client, _driver: driver }
}

/// A connection in a new, empty schema.
pub async fn connect_new(schema: &str) -> Session {
    let session = connect(schema).await;
    let text = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
    session.client.batch_execute(&text).await.unwrap();
    session
}
