use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const DOCUMENT: &str = r#"{"AccessKeyId": "ASIA", "SecretAccessKey": "s", "Token": "t"}"#;

/// A metadata service that holds to the rules of either: a token for whoever asks by PUT, credentials
/// for who has it.
async fn service() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let (status, body) = answer(&head);
            let length = body.len();
            let text = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    });
    format!("http://{address}")
}

fn answer(head: &str) -> (u16, &'static str) {
    let first = head.lines().next().unwrap();
    let has_token = head.contains("x-aws-ec2-metadata-token: ticket\r\n");
    match first {
        "put /latest/api/token http/1.1"
            if head.contains("x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n") =>
        {
            (200, "ticket")
        }
        "get /latest/meta-data/iam/security-credentials/ http/1.1" if has_token => {
            (200, "writer\n")
        }
        "get /latest/meta-data/iam/security-credentials/writer http/1.1" if has_token => {
            (200, DOCUMENT)
        }
        "get /task http/1.1" if head.contains("authorization: pod\r\n") => (200, DOCUMENT),
        _ => (401, "no"),
    }
}

fn metadata(variables: &[(&str, &str)]) -> Result<Metadata, String> {
    Metadata::new(|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

#[tokio::test]
async fn an_instance_is_asked_with_a_token() {
    let base = service().await;
    let metadata = metadata(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &base)]).unwrap();
    let found = metadata.fetch().await.unwrap();
    assert_eq!(found, Credentials::parse(DOCUMENT.as_bytes()).unwrap());
}

#[tokio::test]
async fn a_container_is_asked_with_the_token_of_a_file() {
    let url = format!("{}/task", service().await);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "pod\n").unwrap();
    let file = file.path().to_str().unwrap();
    let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*url);
    let metadata_with = metadata(&[full, ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file)]);
    let found = metadata_with.unwrap().fetch().await.unwrap();
    assert_eq!(found.key_id, "ASIA");
    let refused = metadata(&[full, ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "other")]);
    let error = refused.unwrap().fetch().await.unwrap_err();
    assert!(error.starts_with(&url) && error.contains("401"), "{error}");
}

#[test]
fn what_cannot_be_asked_is_told_at_once() {
    for (variables, word) in [
        (
            [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "pod")],
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ),
        ([("AWS_EC2_METADATA_DISABLED", "true")], "credentials: none"),
    ] {
        let error = metadata(&variables).err().unwrap();
        assert!(error.contains(word), "{error}");
    }
    let place = place(|name| {
        (name == "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").then(|| "/v2/x".to_owned())
    });
    let Ok(Place::Container { url, .. }) = place else {
        panic!();
    };
    assert_eq!(url, "http://169.254.170.2/v2/x");
}
