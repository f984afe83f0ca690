//! Traces, if somebody wants them: a span a pass, in it one for what each backend is asked, and in that one for each command to
//! Ceph. Sent by OTLP over HTTP. Only spans of Shoal's own are, with the fields that they name, and no log lines.

use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::{runtime::Handle, time::timeout};
use tracing::Subscriber;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::settings::Settings;

/// How long one request to the collector may take.
const SENDING: Duration = Duration::from_secs(5);
/// The longest answer of a collector that is read, in bytes.
const LONGEST_ANSWER: usize = 1 << 16;
/// How long the last ones are waited for at the end.
const AT_THE_END: Duration = Duration::from_secs(2);

/// What sends spans.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends what has not been sent, if that does not take long.
    pub fn end(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(AT_THE_END) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// A layer that sends spans where the settings say; none if they say nothing. An error is no reason not to run: whole clusters are told
/// by the environment where traces go, and no share depends on them.
pub fn layer<S>(
    settings: &Settings,
    runtime: &Handle,
) -> Result<Option<(impl Layer<S> + use<S>, Traces)>, String>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let Some(endpoint) = settings
        .otlp_endpoint
        .as_deref()
        .filter(|endpoint| !endpoint.is_empty())
    else {
        return Ok(None);
    };
    let refused =
        |why: &str| format!("--otlp-endpoint or OTEL_EXPORTER_OTLP_ENDPOINT is '{endpoint}': {why}");
    if !endpoint.starts_with("http://") {
        return Err(refused(
            "traces are sent without TLS, to a collector nearby; write http://host:port, or leave it empty to send none",
        ));
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(OnTokio {
            client: Client::builder(TokioExecutor::new()).build_http(),
            runtime: runtime.clone(),
        })
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(SENDING)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        .map_err(|error| refused(&error.to_string()))?;
    let resource = Resource::builder()
        .with_service_name("shoal")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", settings.identity.clone()))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("shoal"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_filter(filter_fn(|what| {
            what.is_span() && what.target().starts_with("shoal_")
        }));
    Ok(Some((layer, Traces(provider))))
}

/// Spans are sent from a thread of their own, and the client needs tokio.
#[derive(Debug)]
struct OnTokio {
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnTokio {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sending = self.client.request(request.map(Full::new));
        let sent = async move {
            let (head, body) = sending.await?.into_parts();
            let body = Limited::new(body, LONGEST_ANSWER).collect().await?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        // Nothing of tokio's may be made outside of it.
        self.runtime
            .spawn(async move { timeout(SENDING, sent).await })
            .await??
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;
    use tracing_subscriber::Registry;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    fn refusal(endpoint: &str) -> Option<String> {
        let flag = format!("--otlp-endpoint={endpoint}");
        let settings = Cli::try_parse_from(["shoal", &flag]).unwrap().settings;
        let runtime = tokio::runtime::Runtime::new().unwrap();
        layer::<Registry>(&settings, runtime.handle()).err()
    }

    #[test]
    fn an_endpoint_that_can_not_be_used_is_named_and_what_to_write() {
        assert_eq!(refusal(""), None);
        assert_eq!(refusal("http://127.0.0.1:4318"), None);
        for endpoint in ["https://collector.example.org:4318", "collector:4318"] {
            let told = refusal(endpoint).unwrap();
            for word in ["OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, "http://host:port"] {
                assert!(told.contains(word), "{told}");
            }
        }
        assert!(refusal("http://no host").is_some());
    }
}
