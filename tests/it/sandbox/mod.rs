//! The simulated platform keeps the rules of the API document, and its faults look to a client as they should.
//!
//! Real HTTP over loopback throughout. Whether the answers also fit the document's schemas is what
//! `tests/contract/check` looks at.

mod access;
mod control;
mod faults;
mod random;
mod records;
mod writes;

use std::collections::HashMap;

use benefits_sync::sandbox::{FaultRule, RunningSandbox, Sandbox, SandboxOptions};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// A sandbox and somebody who talks to it.
struct Rig {
    sandbox: RunningSandbox,
    client: Client,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    /// The status, and the last part of the problem's type.
    fn problem(&self) -> (u16, &str) {
        let kind = self.body["type"].as_str().unwrap_or_default();
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.body);
        assert_eq!(self.body["status"], self.status.as_u16());
        (self.status.as_u16(), kind.strip_prefix("/problems/").unwrap())
    }

    fn id(&self) -> &str {
        self.body["id"].as_str().unwrap()
    }

    fn errors(&self) -> HashMap<String, String> {
        let errors = self.body["errors"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        errors.iter().map(|error| (text(&error["field"]), text(&error["code"]))).collect()
    }
}

fn client() -> Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

impl Rig {
    async fn new() -> Self {
        Self::with(SandboxOptions { keep_bodies: true, ..SandboxOptions::default() }).await
    }

    async fn with(options: SandboxOptions) -> Self {
        Self { sandbox: Sandbox::start(options).await.unwrap(), client: client() }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/platforms/demo{path}", self.sandbox.base_url())
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth("sandbox-token")
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null);
        Answer { status, headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    fn posting(&self, key: &str, body: &Value) -> reqwest::RequestBuilder {
        let request = self.request(Method::POST, "/employees").header("Idempotency-Key", key);
        request.header("Content-Type", "application/json").body(body.to_string())
    }

    fn patching(&self, id: &str, key: &str, body: &Value) -> reqwest::RequestBuilder {
        let request = self.request(Method::PATCH, &format!("/employees/{id}")).header("Idempotency-Key", key);
        request.header("Content-Type", "application/merge-patch+json").body(body.to_string())
    }

    async fn create(&self, key: &str, body: &Value) -> Answer {
        self.send(self.posting(&padded(key), body)).await
    }

    async fn patch(&self, id: &str, key: &str, body: &Value) -> Answer {
        self.send(self.patching(id, &padded(key), body)).await
    }

    fn arm(&self, rule: &str) {
        self.sandbox.arm(rule.parse::<FaultRule>().unwrap());
    }
}

/// A key of a length that is allowed.
fn padded(key: &str) -> String {
    format!("{key:-<16}")
}

/// A new employee with nothing but what is required.
fn employee(external_id: &str) -> Value {
    json!({
        "externalId": external_id, "sourceVersion": 10, "title": "Ms", "forenames": "Ada", "surname": "Byron",
        "dateOfBirth": "1985-12-10", "gender": "Female", "email": format!("Ada.{external_id}@Example.com"),
        "annualPay": "31000.00", "payBasis": "Annual", "payFrequency": "Monthly", "payChangeReason": "New starter",
    })
}

fn with(mut base: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    for (name, value) in changes {
        base[name] = value;
    }
    base
}
