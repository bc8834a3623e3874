//! Object stores: a folder, a server that holds to S3's rules
//! (https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html, "Multipart upload limits"), and moto's
//! S3. Of Google's and Azure's services servers that take what `object_store` sends them.
//!
//! - S3: signed for the bucket's region; the hash of the body is that of the body; parts are numbered
//!   and have at least 5 MiB but for the last.
//! - No key has more than 1,024 bytes, and no object is written twice with other bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use ring::digest;
use serde_json::{Value, json};

use crate::common::{Running, until};
use crate::harness::{Bench, Fault, Got, Request, Subject, books};
use crate::http_server::{HttpRequest, HttpServer, Reply, Service};
use crate::moto::Moto;

/// What objects hold, by key.
type Objects = BTreeMap<String, Vec<u8>>;

fn read(key: &str, bytes: &[u8]) -> Vec<Got> {
    let text = match key.rsplit('.').next() {
        Some("zst") => zstd::decode_all(bytes).unwrap(),
        Some("gz") => {
            let mut text = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(bytes);
            std::io::Read::read_to_end(&mut decoder, &mut text).unwrap();
            text
        }
        _ => bytes.to_vec(),
    };
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter(|it| !it.is_empty());
    let events = lines.map(|line| thinglog_schemas::json::read(line).unwrap());
    let got = events.map(|event| Got {
        device: event.device.to_string(),
        message: event.message,
    });
    got.collect()
}

/// The events of objects; later numbers of a stage came later.
fn events(objects: &Objects) -> Vec<Got> {
    let number = |key: &str| key.rsplit_once('-').map(|(_, number)| number.to_owned());
    let mut keys: Vec<&String> = objects.keys().collect();
    keys.sort_by_key(|key| (number(key), key.to_string()));
    keys.iter()
        .flat_map(|key| read(key, &objects[*key]))
        .collect()
}

fn config(more: Value) -> Value {
    let mut config = json!({
        "type": "object-store",
        "batch": {"max_events": 50, "max_age_ms": 50},
        "retry": {"from_ms": 5, "max_ms": 50},
        "http": {"timeout_ms": 1000},
    });
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    config
}

fn keys() -> Value {
    json!({"access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret"})
}

/// A folder.
pub(crate) struct Local(tempfile::TempDir);

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, into),
            false => into.push(path),
        }
    }
}

impl Local {
    fn objects(&self) -> Objects {
        let mut paths = Vec::new();
        files(self.0.path(), &mut paths);
        // What is being written has a name with `#`.
        paths.retain(|path| !path.display().to_string().contains('#'));
        let read = |path: PathBuf| {
            let bytes = std::fs::read(&path).unwrap();
            (path.display().to_string(), bytes)
        };
        paths.into_iter().map(read).collect()
    }
}

impl Subject for Local {
    const DEDUPLICATES: bool = true;

    async fn start() -> Option<Local> {
        Some(Local(tempfile::tempdir().unwrap()))
    }

    fn config(&self) -> Value {
        config(json!({"url": format!("file://{}/lake", self.0.path().display())}))
    }

    fn got(&self) -> Vec<Got> {
        events(&self.objects())
    }

    fn fail(&self, _fault: Fault) -> bool {
        false
    }

    async fn stop(&mut self) {
        std::fs::rename(self.0.path().join("lake"), self.0.path().join("away")).unwrap();
        std::fs::write(self.0.path().join("lake"), "no folder").unwrap();
    }

    async fn resume(&mut self) {
        std::fs::remove_file(self.0.path().join("lake")).unwrap();
        std::fs::rename(self.0.path().join("away"), self.0.path().join("lake")).unwrap();
    }
}

/// A server of one of the services.
pub(crate) struct Remote<K> {
    server: HttpServer,
    store: Arc<Shelf>,
    kind: std::marker::PhantomData<K>,
}

/// What a server has.
#[derive(Default)]
struct Shelf {
    objects: Mutex<Objects>,
    uploads: Mutex<BTreeMap<String, BTreeMap<u32, Vec<u8>>>>,
    /// Uploads that were completed.
    completed: Mutex<usize>,
    wrong: Mutex<Vec<String>>,
}

impl Shelf {
    fn put(&self, key: &str, bytes: Vec<u8>) {
        let mut objects = self.objects.lock();
        if key.len() > 1024 || objects.get(key).is_some_and(|known| *known != bytes) {
            self.wrong
                .lock()
                .push(format!("{key} is written anew with other bytes"));
        }
        objects.insert(key.to_owned(), bytes);
    }
}

/// How a service is configured and spoken to.
pub(crate) trait Kind: Send + Sync + Sized + 'static {
    fn config(address: &str) -> Value;
    fn check(request: &HttpRequest) -> Result<(), String>;
    fn answer(shelf: &ShelfOf<Self>, request: &HttpRequest) -> Reply;
}

pub(crate) struct ShelfOf<K>(Arc<Shelf>, std::marker::PhantomData<K>);

impl<K: Kind> Service for ShelfOf<K> {
    fn read(&self, request: &HttpRequest) -> Result<Vec<Got>, String> {
        K::check(request).map(|()| Vec::new())
    }

    fn answer(&self, request: &HttpRequest, _events: Vec<Got>, _poison: bool) -> Reply {
        K::answer(self, request)
    }
}

impl<K: Kind> Subject for Remote<K> {
    const DEDUPLICATES: bool = true;

    async fn start() -> Option<Remote<K>> {
        let store = Arc::new(Shelf::default());
        let kind = std::marker::PhantomData;
        let server = HttpServer::serve(ShelfOf::<K>(Arc::clone(&store), kind)).await;
        Some(Remote {
            server,
            store,
            kind,
        })
    }

    fn config(&self) -> Value {
        config(K::config(&format!("http://{}", self.server.address)))
    }

    fn got(&self) -> Vec<Got> {
        events(&self.store.objects.lock())
    }

    fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    fn violations(&self) -> Vec<String> {
        let mut all = self.server.violations();
        all.extend(self.store.wrong.lock().clone());
        all
    }

    fn fail(&self, fault: Fault) -> bool {
        !matches!(fault, Fault::Poison | Fault::Antidote) && self.server.fail(fault)
    }

    async fn stop(&mut self) {
        self.server.stop().await;
    }

    async fn resume(&mut self) {
        self.server.resume().await;
    }
}

fn done(status: u16, body: &str) -> Reply {
    Reply {
        status,
        body: body.into(),
        accepted: Vec::new(),
    }
}

/// Path and the values of the query.
fn target(request: &HttpRequest) -> (&str, BTreeMap<&str, &str>) {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    (
        path,
        pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .collect(),
    )
}

/// S3.
pub(crate) struct S3;

impl Kind for S3 {
    fn config(address: &str) -> Value {
        let s3 = json!({"region": "eu-central-1", "endpoint": address, "credentials": keys()});
        json!({"url": "s3://logs/fleet", "s3": s3})
    }

    fn check(request: &HttpRequest) -> Result<(), String> {
        let signed = request.header("authorization").unwrap_or_default();
        let scope = "/eu-central-1/s3/aws4_request, SignedHeaders=";
        if !signed.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
            || !signed.contains(scope)
        {
            return Err(format!("signed by {signed:?}"));
        }
        let hash = digest::digest(&digest::SHA256, &request.raw);
        let hash: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        match request.header("x-amz-content-sha256") {
            Some(said) if said == hash => Ok(()),
            said => Err(format!("the body's hash is {hash}, said to be {said:?}")),
        }
    }

    fn answer(shelf: &ShelfOf<S3>, request: &HttpRequest) -> Reply {
        let shelf = &shelf.0;
        let (path, query) = target(request);
        let Some(key) = path.strip_prefix("/logs/") else {
            return done(404, "<Error><Code>NoSuchBucket</Code></Error>");
        };
        let upload = query.get("uploadId").map(|id| (*id).to_owned());
        match (request.method.as_str(), upload) {
            ("POST", None) if query.contains_key("uploads") => {
                let mut uploads = shelf.uploads.lock();
                let id = format!("upload-{}", uploads.len());
                uploads.insert(id.clone(), BTreeMap::new());
                let text = format!(
                    "<InitiateMultipartUploadResult><Bucket>logs</Bucket><Key>{key}</Key>\
                     <UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                );
                done(200, &text)
            }
            ("PUT", Some(id)) => {
                let number = query["partNumber"].parse().unwrap();
                let mut uploads = shelf.uploads.lock();
                uploads
                    .get_mut(&id)
                    .unwrap()
                    .insert(number, request.raw.clone());
                done(200, "")
            }
            ("POST", Some(id)) => shelf.complete(key, &id),
            ("DELETE", Some(id)) => {
                shelf.uploads.lock().get_mut(&id).unwrap().clear();
                done(204, "")
            }
            ("PUT", None) => {
                shelf.put(key, request.raw.clone());
                done(200, "")
            }
            _ => done(405, ""),
        }
    }
}

impl Shelf {
    fn complete(&self, key: &str, id: &str) -> Reply {
        let parts: Vec<Vec<u8>> = self.uploads.lock()[id].values().cloned().collect();
        let (_, before) = parts.split_last().unwrap();
        if before.iter().any(|part| part.len() < 5 << 20) {
            return done(400, "<Error><Code>EntityTooSmall</Code></Error>");
        }
        self.put(key, parts.concat());
        *self.completed.lock() += 1;
        done(
            200,
            "<CompleteMultipartUploadResult><ETag>whole</ETag></CompleteMultipartUploadResult>",
        )
    }
}

/// Google Cloud Storage.
pub(crate) struct Google;

impl Kind for Google {
    fn config(address: &str) -> Value {
        // Of an account that needs no token.
        let account = Path::new(env!("CARGO_TARGET_TMPDIR")).join("google-account.json");
        let text = json!({
            "private_key": "private", "private_key_id": "id", "client_email": "a@example.org",
            "gcs_base_url": null, "disable_oauth": true,
        });
        std::fs::write(&account, text.to_string()).unwrap();
        let gcs = json!({"service_account": account, "endpoint": address});
        json!({"url": "gs://logs/fleet", "gcs": gcs})
    }

    fn check(request: &HttpRequest) -> Result<(), String> {
        let says = request.header("content-length").unwrap_or_default();
        match request.method == "PUT" && says == request.raw.len().to_string() {
            true => Ok(()),
            false => Err(format!("{} {}", request.method, request.path)),
        }
    }

    fn answer(shelf: &ShelfOf<Google>, request: &HttpRequest) -> Reply {
        match target(request).0.strip_prefix("/logs/") {
            Some(key) => {
                shelf.0.put(&key.replace("%2E", "."), request.raw.clone());
                done(200, "")
            }
            None => done(404, ""),
        }
    }
}

/// Azure Blob Storage.
pub(crate) struct Azure;

impl Kind for Azure {
    fn config(address: &str) -> Value {
        let azure = json!({"account": "account1", "access_key": "c2VjcmV0", "endpoint": address});
        json!({"url": "az://logs/fleet", "azure": azure})
    }

    fn check(request: &HttpRequest) -> Result<(), String> {
        let signed = request.header("authorization").unwrap_or_default();
        let is_block = request.header("x-ms-blob-type") == Some("BlockBlob");
        match signed.starts_with("SharedKey account1:") && request.header("x-ms-version").is_some()
        {
            true if is_block => Ok(()),
            _ => Err(format!(
                "{} {}: {:?}",
                request.method, request.path, request.headers
            )),
        }
    }

    fn answer(shelf: &ShelfOf<Azure>, request: &HttpRequest) -> Reply {
        let (path, _) = target(request);
        match (request.method.as_str(), path.strip_prefix("/logs/")) {
            ("PUT", Some(key)) => {
                shelf.0.put(key, request.raw.clone());
                done(201, "")
            }
            _ => done(404, ""),
        }
    }
}

/// Azure Blob Storage by a shared access signature; `new` is the one that is let in.
pub(crate) struct Shared;

impl Kind for Shared {
    fn config(address: &str) -> Value {
        let azure = json!({"account": "account1", "sas_token": "sig=none", "endpoint": address});
        json!({"url": "az://logs/fleet", "azure": azure})
    }

    fn check(_: &HttpRequest) -> Result<(), String> {
        Ok(())
    }

    fn answer(shelf: &ShelfOf<Shared>, request: &HttpRequest) -> Reply {
        let (path, query) = target(request);
        match (query.get("sig"), path.strip_prefix("/logs/")) {
            (Some(&"new"), Some(key)) => {
                shelf.0.put(key, request.raw.clone());
                done(201, "")
            }
            _ => done(403, "<Error><Code>AuthenticationFailed</Code></Error>"),
        }
    }
}

/// Of all that S3 promises; moto has no memory of before a restart.
struct InMoto(Moto);

impl Subject for InMoto {
    const DEDUPLICATES: bool = true;

    async fn start() -> Option<InMoto> {
        let moto = Moto::start().await?;
        let body =
            b"<CreateBucketConfiguration><LocationConstraint>eu-central-1</LocationConstraint>\
                     </CreateBucketConfiguration>";
        assert_eq!(moto.ask("s3", "PUT /logs", body).0, 200);
        Some(InMoto(moto))
    }

    fn config(&self) -> Value {
        let endpoint = format!("http://127.0.0.1:{}", self.0.port);
        let s3 = json!({"region": "eu-central-1", "endpoint": endpoint, "credentials": keys()});
        let mut config = config(json!({"url": "s3://logs/fleet", "compression": "gzip", "s3": s3}));
        config["http"]["timeout_ms"] = 10_000.into();
        config
    }

    fn got(&self) -> Vec<Got> {
        let (_, listed) = self.0.ask("s3", "GET /logs?list-type=2", b"");
        let listed = String::from_utf8(listed).unwrap();
        let keys = listed
            .split("<Key>")
            .skip(1)
            .map(|rest| rest.split('<').next().unwrap());
        let object = |key: &str| {
            let (status, bytes) = self.0.ask("s3", &format!("GET /logs/{key}"), b"");
            assert_eq!(status, 200, "{key}");
            (key.to_owned(), bytes)
        };
        events(&keys.map(object).collect())
    }

    fn fail(&self, _fault: Fault) -> bool {
        false
    }

    async fn stop(&mut self) {
        self.0.stop();
    }

    async fn resume(&mut self) {
        self.0.resume().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_found_in_moto() {
    let Some(mut bench) = Bench::<InMoto>::start().await else {
        return;
    };
    let router = bench.router().await;
    bench.publish("lamp-1", 30).await;
    bench.publish("lamp-2", 30).await;
    bench.exactly().await;
    books(&router, 60, 0).await;
    router.stop().await;
}

/// More than a part, in one object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_object_is_sent_in_parts_and_one_that_fails_begins_anew() {
    let Some(mut bench) = Bench::<Remote<S3>>::start().await else {
        return;
    };
    let mut subject = bench.subject.config();
    subject["compression"] = "none".into();
    subject["batch"] = json!({"max_bytes": 12 << 20, "max_age_ms": 300_000});
    subject["http"]["timeout_ms"] = 60_000.into();
    let mut config = bench.config();
    let subject = serde_json::from_value(subject).unwrap();
    config.destinations.insert("subject".into(), subject);
    let router = Running::start(config.clone()).await;
    bench.subject.fail(Fault::Unavailable);
    let behind = format!(" {}", "x".repeat(1000));
    for _ in 0..11 {
        bench.publish_with("lamp-1", 1000, &behind).await;
    }
    books(&router, 11_000, 0).await;
    // What is staged is complete with the next start.
    router.stop().await;
    let router = Running::start(config).await;
    bench.exactly().await;
    assert!(*bench.subject.store.completed.lock() >= 1);
    router.stop().await;
}

/// The store is away, the stage is full, and the broker keeps the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stage_stops_taking_and_goes_on_when_the_store_is_back() {
    let Some(mut bench) = Bench::<Remote<S3>>::start().await else {
        return;
    };
    bench.subject.stop().await;
    let mut subject = bench.subject.config();
    subject["stage_bytes"] = (1 << 20).into();
    subject["batch"] = json!({"max_bytes": 256 << 10, "max_age_ms": 50});
    let mut config = bench.config();
    let subject = serde_json::from_value(subject).unwrap();
    config.destinations.insert("subject".into(), subject);
    let router = Running::start(config).await;
    let behind = format!(" {}", "x".repeat(1000));
    let outcome = |what| router.metric("thinglog_router_events_total", &["subject", what]);
    while router.metric("thinglog_router_staged_bytes", &["subject"]) < (1 << 20) as f64 {
        bench.publish_with("lamp-1", 100, &behind).await;
    }
    for _ in 0..20 {
        bench.publish_with("lamp-1", 100, &behind).await;
    }
    let in_flight = || router.metric("thinglog_router_events_in_flight", &["subject"]);
    until("events wait to be staged", || in_flight() > 0.0).await;
    assert!(outcome("delivered") < bench.sent.len() as f64);
    bench.subject.resume().await;
    bench.exactly().await;
    books(&router, bench.sent.len(), 0).await;
    until("the destination is ready", || router.is_ready("subject")).await;
    router.stop().await;
}

/// The end does not wait for the store, and the next start brings in what was staged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_staged_at_the_end_is_uploaded_after_the_start() {
    let Some(mut bench) = Bench::<Remote<S3>>::start().await else {
        return;
    };
    bench.subject.stop().await;
    let router = bench.router().await;
    bench.publish("lamp-1", 70).await;
    until("the destination is not ready", || {
        !router.is_ready("subject")
    })
    .await;
    books(&router, 70, 0).await;
    router.stop().await;
    assert_eq!(bench.subject.got(), []);
    bench.subject.resume().await;
    let router = bench.router().await;
    bench.exactly().await;
    router.stop().await;
}

/// A folder of payloads as they came.
struct Payloads(Local);

impl Payloads {
    /// Topic and payload of each line, in order.
    fn all(&self) -> Vec<(Value, Vec<u8>)> {
        use base64::Engine as _;
        let objects = self.0.objects();
        let mut texts: Vec<(&str, &Vec<u8>)> = objects
            .iter()
            .map(|(key, bytes)| (key.rsplit_once('-').unwrap().1, bytes))
            .collect();
        texts.sort();
        let texts = texts.into_iter().map(|(number, bytes)| {
            assert!(number.ends_with(".raw.ndjson.zst"), "{number}");
            String::from_utf8(zstd::decode_all(&bytes[..]).unwrap()).unwrap()
        });
        let texts: Vec<String> = texts.collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        lines
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                let payload = line["payload_base64"].as_str().unwrap();
                let payload = base64::engine::general_purpose::STANDARD.decode(payload);
                (line, payload.unwrap())
            })
            .collect()
    }
}

/// Behind mosquitto, which numbers nothing: what comes again is there again.
impl Subject for Payloads {
    async fn start() -> Option<Payloads> {
        Local::start().await.map(Payloads)
    }

    fn config(&self) -> Value {
        let mut config = self.0.config();
        config["format"] = "raw".into();
        config
    }

    fn got(&self) -> Vec<Got> {
        let mut decoder = thinglog_schemas::payload::PayloadDecoder::new();
        let mut got = Vec::new();
        for (line, payload) in self.all() {
            let topic = line["topic"].as_str().unwrap();
            let device = topic.split('/').nth(2).unwrap();
            let decoded = decoder.decode(&device.into(), &"app".into(), &payload, &<_>::default());
            got.extend(decoded.unwrap().events.into_iter().map(|event| Got {
                device: device.to_owned(),
                message: event.message,
            }));
        }
        got
    }

    fn fail(&self, _fault: Fault) -> bool {
        false
    }

    async fn stop(&mut self) {
        self.0.stop().await;
    }

    async fn resume(&mut self) {
        self.0.resume().await;
    }
}

/// Before levels, and also what nobody can read: everything that came, to the byte, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_has_every_payload_as_it_came() {
    let Some(mut bench) = Bench::<Payloads>::start().await else {
        return;
    };
    let off = r#"{"disabled": true}"#;
    bench.device.retain("thinglog/config/default", off).await;
    let router = bench.router().await;
    let payloads: [&[u8]; 4] = [b"plain\ntext", br#"{"message": "x"}"#, b"\xff\xfe\0", b""];
    for payload in payloads {
        bench
            .device
            .publish("thinglog/logs/lamp-1/app", payload)
            .await;
    }
    bench
        .device
        .publish("thinglog/logs/lamp-1/b%20c", "odd")
        .await;
    // As the bundled broker numbers them: once, however often it comes.
    for _ in 0..3 {
        bench
            .device
            .publish_stamped("thinglog/logs/lamp-2/app", b"numbered", 77)
            .await;
    }
    books(&router, 6, 0).await;
    until("everything to be there", || bench.subject.all().len() == 6).await;
    let all = bench.subject.all();
    for (at, payload) in payloads.iter().enumerate() {
        assert_eq!(all[at].1, *payload);
        assert_eq!(all[at].0["topic"], "thinglog/logs/lamp-1/app");
        assert!(all[at].0["received"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(all[4].0["topic"], "thinglog/logs/lamp-1/b%20c");
    assert!(all[5].0["offset"].as_str().unwrap().ends_with("/77"));
    router.stop().await;
}

mod payloads {
    mod contract {
        crate::contract!(@tests super::super::Payloads:
            a_killed_router_loses_nothing,
        );
    }
}

/// A signature that is not let in, until its file has another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_of_a_file_rotate() {
    let Some(mut bench) = Bench::<Remote<Shared>>::start().await else {
        return;
    };
    let file = bench.data.path().join("sas");
    std::fs::write(&file, "sv=2024-11-04&sig=old").unwrap();
    let mut subject = bench.subject.config();
    subject["azure"]["sas_token"] = json!({"file": file});
    let mut config = bench.config();
    let subject = serde_json::from_value(subject).unwrap();
    config.destinations.insert("subject".into(), subject);
    let router = Running::start(config).await;
    bench.publish("lamp-1", 10).await;
    until("the destination is not ready", || {
        !router.is_ready("subject")
    })
    .await;
    assert_eq!(bench.subject.got(), []);
    std::fs::write(&file, "sv=2024-11-04&sig=new").unwrap();
    bench.exactly().await;
    until("the destination is ready", || router.is_ready("subject")).await;
    router.stop().await;
}

mod local {
    use super::Local;

    mod contract {
        crate::contract!(@tests super::Local:
            everything_arrives_once_and_the_books_balance,
            a_lone_event_is_not_kept_waiting,
            a_restart_of_the_service_loses_nothing,
            a_killed_router_loses_nothing,
        );
    }
}

mod s3 {
    use super::{Remote, S3};

    mod contract {
        crate::contract!(@tests super::Remote<super::S3>:
            everything_arrives_once_and_the_books_balance,
            a_lone_event_is_not_kept_waiting,
            a_service_that_is_unavailable_is_tried_again,
            a_request_without_an_answer_is_sent_again,
            a_connection_that_breaks_is_made_again,
            a_restart_of_the_service_loses_nothing,
            a_killed_router_loses_nothing,
        );
    }
}

mod azure {
    use super::{Azure, Remote};

    mod contract {
        crate::contract!(@tests super::Remote<super::Azure>:
            everything_arrives_once_and_the_books_balance,
            a_service_that_is_unavailable_is_tried_again,
            a_restart_of_the_service_loses_nothing,
        );
    }
}

mod google {
    use super::{Google, Remote};

    mod contract {
        crate::contract!(@tests super::Remote<super::Google>:
            everything_arrives_once_and_the_books_balance,
            a_service_that_is_unavailable_is_tried_again,
            a_restart_of_the_service_loses_nothing,
        );
    }
}
