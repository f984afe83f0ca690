//! The health and metrics endpoints.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use crate::{context::Context, metrics};

/// Begins to listen, so that a taken address is an error at the start.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("--listen {address}"))
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, ctx: Arc<Context>) -> anyhow::Result<()> {
    let ready = ctx.clone();
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                if ready.is_stopping() {
                    (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
                } else if ready.fence.is_leading() {
                    (StatusCode::OK, "leading\n")
                } else {
                    (StatusCode::OK, "standing by\n")
                }
            }),
        )
        .route(
            "/metrics",
            get(move || async move {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(header::CONTENT_TYPE, kind)], metrics::answer(&ctx)).into_response()
            }),
        );
    axum::serve(listener, app)
        .await
        .context("health and metrics endpoints")
}
