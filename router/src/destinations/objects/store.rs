//! The stores, by the crate `object_store`: requests, signatures and answers are its own; connections,
//! TLS and timeouts are those of every destination behind HTTP, and nothing is tried twice here.

use std::path::Path as Folder;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{
    ClientOptions, CredentialProvider, HttpClient, HttpConnector, HttpError, HttpErrorKind,
    HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, RetryConfig};
use parking_lot::Mutex;

use crate::config::{AzureConfig, Compression, GcsConfig, ObjectStoreConfig, S3Config, Secret};
use crate::destinations::aws::credentials::Provider;
use crate::destinations::http::{Connection, Head};
use crate::destinations::layout::Place;
use crate::folder::create_durably;

/// A store, and what it said about when to come back.
#[derive(Clone)]
pub(crate) struct Store {
    objects: Arc<Mutex<Arc<dyn ObjectStore>>>,
    config: Arc<ObjectStoreConfig>,
    pub(super) prefix: String,
    asked: Asked,
    aws: Option<Arc<Keys>>,
}

/// The last `Retry-After`.
type Asked = Arc<Mutex<Option<Duration>>>;

impl Store {
    /// By the configuration; the error names key and reason. A folder is not made yet.
    pub(crate) fn new(config: &ObjectStoreConfig) -> Result<Store, String> {
        let place = Place::parse(&config.url).map_err(|reason| format!("url: {reason}"))?;
        let asked = Asked::default();
        let mut prefix = place.prefix.clone();
        if place.scheme == "file" {
            prefix.remove(0);
            if !prefix.is_empty() && !prefix.ends_with('/') {
                prefix.push('/');
            }
        }
        let aws = match &config.s3 {
            Some(s3) => Some(Arc::new(Keys(Provider::new(s3.credentials.as_ref())?))),
            None => None,
        };
        let objects = objects(config, &place, aws.as_ref(), &asked)?;
        Ok(Store {
            objects: Arc::new(Mutex::new(objects)),
            config: Arc::new(config.clone()),
            prefix,
            asked,
            aws,
        })
    }

    /// The store as it is spoken to now.
    pub(super) fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects.lock())
    }

    /// Makes the folder of a store that is one.
    pub(crate) fn prepare(&self, config: &ObjectStoreConfig) -> std::io::Result<()> {
        match config.url.strip_prefix("file://") {
            Some(folder) => create_durably(Folder::new(folder)),
            None => Ok(()),
        }
    }

    /// What to do about a failure: when it wants to be asked again. Credentials are fetched and their files
    /// read anew, for they may be others now.
    pub(super) fn failed(&self, error: &object_store::Error) -> Option<Duration> {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        if matches!(error, PermissionDenied { .. } | Unauthenticated { .. }) {
            self.log_in_anew();
        }
        self.asked.lock().take()
    }

    fn log_in_anew(&self) {
        if let Some(keys) = &self.aws {
            return keys.0.forget();
        }
        let made = Place::parse(&self.config.url)
            .and_then(|place| objects(&self.config, &place, None, &self.asked));
        match made {
            Ok(made) => *self.objects.lock() = made,
            Err(reason) => tracing::warn!(reason, "credentials cannot be read again"),
        }
    }
}

/// The client of a store, with credentials as they are now.
fn objects(
    config: &ObjectStoreConfig,
    place: &Place,
    keys: Option<&Arc<Keys>>,
    asked: &Asked,
) -> Result<Arc<dyn ObjectStore>, String> {
    let http = || {
        let connection = Connection::new(&config.http, Compression::None, "Bearer")?;
        Ok::<_, String>(Http(Arc::new(Requests {
            connection,
            asked: Arc::clone(asked),
        })))
    };
    match (&*place.scheme, (&config.s3, keys), &config.azure) {
        ("s3", (Some(s3), Some(keys)), _) => {
            amazon(s3, place, Arc::clone(keys), http()?).map_err(|error| format!("s3: {error}"))
        }
        ("gs", ..) => {
            let gcs = config.gcs.clone().unwrap_or_default();
            google(&gcs, place, http()?).map_err(|error| format!("gcs: {error}"))
        }
        ("az", _, Some(azure)) => microsoft(azure, place, http()?),
        ("file", ..) => Ok(Arc::new(LocalFileSystem::new().with_fsync(true))),
        _ => Err("url: its table is missing".into()),
    }
}

/// Tried again by whoever asks.
fn once() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

type Made = object_store::Result<Arc<dyn ObjectStore>>;

fn amazon(config: &S3Config, place: &Place, keys: Arc<Keys>, http: Http) -> Made {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&place.bucket)
        .with_region(&config.region)
        .with_credentials(keys)
        .with_virtual_hosted_style_request(config.endpoint.is_none())
        .with_allow_http(true)
        .with_retry(once())
        .with_http_connector(http);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    Ok(Arc::new(builder.build()?))
}

fn google(config: &GcsConfig, place: &Place, http: Http) -> Made {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&place.bucket)
        .with_retry(once())
        .with_http_connector(http);
    if let Some(file) = &config.service_account {
        builder = builder.with_service_account_path(file.to_string_lossy());
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint.trim_end_matches('/'));
    }
    Ok(Arc::new(builder.build()?))
}

fn microsoft(
    config: &AzureConfig,
    place: &Place,
    http: Http,
) -> Result<Arc<dyn ObjectStore>, String> {
    let read = |key: &str, secret: &Secret| {
        let secret = secret.read();
        secret.map_err(|error| format!("azure.{key}: {error}"))
    };
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(&config.account)
        .with_container_name(&place.bucket)
        .with_allow_http(true)
        .with_retry(once())
        .with_http_connector(http);
    if let Some(key) = &config.access_key {
        builder = builder.with_access_key(read("access_key", key)?);
    }
    if let Some(token) = &config.sas_token {
        builder = builder.with_config(AzureConfigKey::SasKey, read("sas_token", token)?);
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    let store = builder.build().map_err(|error| format!("azure: {error}"))?;
    Ok(Arc::new(store))
}

/// Credentials of AWS as for every destination there.
struct Keys(Provider);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

type Future<'a, T> = Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;

impl CredentialProvider for Keys {
    type Credential = AwsCredential;

    fn get_credential<'a, 'b>(&'a self) -> Future<'b, object_store::Result<Arc<AwsCredential>>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let found = self.0.get().await.map_err(|reason| {
                let source = reason.into();
                object_store::Error::Generic {
                    store: "S3",
                    source,
                }
            })?;
            Ok(Arc::new(AwsCredential {
                key_id: found.key_id,
                secret_key: found.secret,
                token: found.token,
            }))
        })
    }
}

/// Requests over the client of every destination behind HTTP.
struct Requests {
    connection: Connection,
    asked: Asked,
}

#[derive(Clone)]
struct Http(Arc<Requests>);

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Http")
    }
}

impl HttpConnector for Http {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Http {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Future<'b, Result<HttpResponse, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.0.call(request))
    }
}

impl Requests {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        use http_body_util::BodyExt as _;
        let failed = |reason: String| HttpError::new_boxed(HttpErrorKind::Request, reason.into());
        let (parts, body) = request.into_parts();
        let head = Head {
            method: parts.method,
            url: parts.uri.to_string(),
            headers: parts.headers,
        };
        let body = body.collect().await?.to_bytes();
        let answer = self.connection.exchange(head, body).await.map_err(failed)?;
        if matches!(answer.status, 429 | 503) {
            *self.asked.lock() = answer.retry_after(SystemTime::now());
        }
        let status = answer.status.try_into();
        let mut response = HttpResponse::new(HttpResponseBody::from(answer.body));
        *response.status_mut() = status.map_err(|_| failed("an impossible status".into()))?;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}
