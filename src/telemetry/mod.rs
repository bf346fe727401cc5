//! Meters as Prometheus text, and the HTTP server.
