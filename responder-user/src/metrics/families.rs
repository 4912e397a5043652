//! Families of metrics, written one after the other.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Before all names.
pub(super) const PREFIX: &str = "responder";

/// Names and values of labels.
pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Where families are written to.
pub(super) struct Families<'a>(DescriptorEncoder<'a>);

impl<'a> Families<'a> {
    pub(super) const fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Value) -> fmt::Result {
        value.gauge(self.0.encode_descriptor(name, help, None, ConstGauge::new(0).metric_type())?)
    }

    /// A gauge in seconds.
    pub(super) fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        gauge.encode(self.0.encode_descriptor(name, help, Some(&Unit::Seconds), gauge.metric_type())?)
    }

    /// A counter without labels.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.0.encode_descriptor(name, help, None, counter.metric_type())?)
    }

    /// Gauges by labels.
    pub(super) fn gauges<'l, V: Value>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        let kind = ConstGauge::new(0).metric_type();
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            value.gauge(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Counters by labels.
    pub(super) fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// What a gauge can show.
pub(super) trait Value {
    fn gauge(self, encoder: MetricEncoder<'_>) -> fmt::Result;
}

impl Value for usize {
    fn gauge(self, encoder: MetricEncoder<'_>) -> fmt::Result {
        ConstGauge::new(self).encode(encoder)
    }
}

impl Value for bool {
    fn gauge(self, encoder: MetricEncoder<'_>) -> fmt::Result {
        usize::from(self).gauge(encoder)
    }
}
