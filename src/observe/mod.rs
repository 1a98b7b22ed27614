//! What the gateway tells about itself: metrics, latency histograms, access log, usage.
