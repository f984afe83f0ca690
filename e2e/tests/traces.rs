//! Traces, received as a collector does: a span a pass, in it one for each thing that the backend is asked, and never a key.

#![cfg(test)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use kube::ResourceExt;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value,
    trace::v1::{Span, status::StatusCode},
};
use prost::Message;
use shoal_backend::simulated::{FaultKind, Operation};
use shoal_crds::Protocol;
use shoal_e2e::{
    lab::KubernetesRelease,
    simulated_storage::{BACKEND, SimulatedStorage, cephx_rule},
    suite::Suite,
    world::{PATIENCE, eventually},
};

static SUITE: Suite<SimulatedStorage> = Suite::new();

/// What has come, each request as it was sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Vec<u8>>>>);

impl Collector {
    /// Takes what comes to an address of its own, for as long as the test runs.
    fn start() -> Result<(Self, String)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (collector, address) = (Self::default(), listener.local_addr()?);
        let own = collector.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                // A connection that ends in the middle of a request is no news.
                thread::spawn(move || own.serve(stream));
            }
        });
        Ok((collector, format!("http://{address}")))
    }

    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let (mut is_traces, mut length) = (false, 0);
            loop {
                let mut line = String::new();
                ensure!(reader.read_line(&mut line)? > 0, "the end");
                let line = line.trim_end().to_ascii_lowercase();
                is_traces |= line.starts_with("post /v1/traces ");
                if let Some(told) = line.strip_prefix("content-length: ") {
                    length = told.parse()?;
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            if is_traces {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push(body);
            }
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n",
            )?;
        }
    }

    fn requests(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn spans(&self) -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        for request in self.requests() {
            let request = ExportTraceServiceRequest::decode(request.as_slice())?;
            let scopes = request.resource_spans.into_iter().flat_map(|of| of.scope_spans);
            spans.extend(scopes.flat_map(|scope| scope.spans));
        }
        Ok(spans)
    }
}

fn has(span: &Span, name: &str, value: &str) -> bool {
    span.attributes.iter().any(|attribute| {
        let told = attribute.value.as_ref().and_then(|told| told.value.as_ref());
        attribute.key == name && matches!(told, Some(Value::StringValue(told)) if told == value)
    })
}

#[test]
fn passes_and_what_backends_are_asked_are_traced_without_a_key() {
    let start = || SimulatedStorage::without_operator(KubernetesRelease::default());
    SUITE.run(start, |s| async move {
        let (collector, address) = Collector::start()?;
        let mut options = s.operator_options("operator");
        options.flags.push(format!("--otlp-endpoint={address}"));
        s.start_operator_with(&options).await?;
        s.until_backend(BACKEND, "True", "Available").await?;
        let ns = s.world.namespace("traces").await?;
        s.cluster(BACKEND)
            .await?
            .fail_next(Operation::Create, 0, FaultKind::FailBefore)?;
        let share = s
            .share_let_in(
                &ns,
                "data",
                Protocol::CephFS,
                "trainer",
                cephx_rule("data", None, "ReadWrite"),
            )
            .await?;

        let uid = share.uid().unwrap_or_default();
        let children = |spans: &[Span], name: &str| -> Vec<Span> {
            let passes = spans.iter().filter(|span| {
                span.name == "reconcile" && has(span, "uid", &uid) && has(span, "kind", "Share")
            });
            let passes: Vec<_> = passes.map(|pass| pass.span_id.clone()).collect();
            let own = spans.iter().filter(|span| {
                span.name == name && has(span, "backend", BACKEND) && passes.contains(&span.parent_span_id)
            });
            own.cloned().collect()
        };
        let spans = eventually("the spans of the share and its rule", PATIENCE, async || {
            let spans = collector.spans()?;
            let is_there = !children(&spans, "export").is_empty() && children(&spans, "create").len() > 1;
            Ok(is_there.then_some(spans))
        })
        .await
        .with_context(|| {
            let came = collector.spans().unwrap_or_default();
            let came = came
                .iter()
                .map(|span| (&span.name, &span.span_id, &span.parent_span_id));
            format!(
                "{} requests: {:?}",
                collector.requests().len(),
                came.collect::<Vec<_>>()
            )
        })?;
        let failed: Vec<_> = children(&spans, "create")
            .into_iter()
            .filter(|span| {
                let status = span.status.as_ref().map(|status| status.code);
                status == Some(StatusCode::Error.into()) && has(span, "reason", "BackendError")
            })
            .collect();
        ensure!(failed.len() == 1, "{spans:#?}");

        // A graceful end sends what is left.
        s.end_operator().await?;
        let secret = s.secret(&ns, "trainer-cephx").await?.context("a Secret")?;
        let key = secret.data.context("data")?["userKey"].0.clone();
        let kubeconfig = std::fs::read_to_string(s.world.lab.folder().join("operator.kubeconfig"))?;
        let kubeconfig: serde_json::Value = serde_json::from_str(&kubeconfig)?;
        let token = kubeconfig["users"][0]["user"]["token"]
            .as_str()
            .context("a token")?;
        ensure!(key.len() > 20 && token.len() > 20, "there is nothing to look for");
        for request in collector.requests() {
            for secret in [key.as_slice(), token.as_bytes()] {
                let is_told = request.windows(secret.len()).any(|part| part == secret);
                ensure!(!is_told, "a secret was sent to the collector");
            }
        }
        ensure!(
            collector.spans()?.iter().all(|span| span.events.is_empty()),
            "log lines were sent"
        );

        // Where they can't be sent is said, and is no reason not to run.
        options.flags.pop();
        options
            .flags
            .push("--otlp-endpoint=https://collector.example.org:4318".into());
        s.start_operator_with(&options).await?;
        let log = s.log().await?;
        let told = log.lines().find(|line| line.contains("no traces are sent"));
        let told = told.context("a refusal in the log")?;
        for word in [
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "https://collector.example.org:4318",
            "http://host:port",
        ] {
            ensure!(told.contains(word), "{told}");
        }
        Ok(())
    });
}
