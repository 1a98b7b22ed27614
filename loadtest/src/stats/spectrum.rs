//! Histograms as results keep them.

use super::{Times, no_times, quantile};
use crate::result::Spectrum;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use hdrhistogram::{Counter, Histogram};

/// A distribution with `infinite` failures.
#[must_use]
pub fn spectrum<C: Counter>(times: &Histogram<C>, infinite: u64) -> Spectrum {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let at = |q| quantile(times, infinite, q).map(seconds);
    let count = times.len() + infinite;
    Spectrum {
        count,
        infinite,
        mean: (!times.is_empty()).then(|| times.mean() / 1e9),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: (infinite == 0 && count > 0).then(|| seconds(times.max())),
        histogram: encoded(times),
    }
}

fn encoded<C: Counter>(times: &Histogram<C>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(times, &mut bytes).expect("memory takes it");
    BASE64.encode(bytes)
}

/// The histogram of a result.
///
/// # Errors
/// It is none; says why.
pub fn decoded(spectrum: &Spectrum) -> Result<Times, String> {
    let bytes = BASE64.decode(&spectrum.histogram).map_err(|error| format!("a histogram is no base64: {error}"))?;
    let read = Deserializer::new().deserialize(&mut bytes.as_slice());
    read.map_err(|error| format!("a histogram cannot be read: {error:?}"))
}

/// One distribution of all.
///
/// # Errors
/// One of them is none, or they are not of one kind.
pub fn merged<'s>(spectra: impl IntoIterator<Item = &'s Spectrum>) -> Result<Spectrum, String> {
    let (mut all, mut infinite) = (no_times(), 0);
    for spectrum in spectra {
        all.add(decoded(spectrum)?).map_err(|error| format!("histograms of different kinds: {error:?}"))?;
        infinite += spectrum.infinite;
    }
    Ok(self::spectrum(&all, infinite))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_histograms_are_the_histogram_of_all() {
        let (mut all, mut parts) = (no_times(), vec![no_times(); 3]);
        for row in 0..30_000u64 {
            let time = row * row % 9_999_991 + 500;
            all.saturating_record(time);
            parts[(row % 3) as usize].saturating_record(time);
        }
        let spectra: Vec<_> = parts.iter().map(|part| spectrum(part, 7)).collect();
        assert_eq!(merged(&spectra).unwrap(), spectrum(&all, 21));
        assert_eq!(decoded(&spectra[1]).unwrap(), parts[1]);
        let broken = Spectrum { histogram: "AAAA".to_owned(), ..Spectrum::default() };
        assert!(merged([&broken]).unwrap_err().contains("cannot be read"));
    }
}
