//! Devices: what tensors live on and networks run on. But for the operations the only module that
//! knows of CUDA.

use std::str::FromStr;

use crate::error::{Error, Result};

/// A device that was asked for: `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its index.
    Cuda(usize),
}

/// A device that is open.
#[derive(Clone, Debug)]
pub struct Device {
    /// Where tensors are.
    pub(super) tensors: candle_core::Device,
    /// On the CPU, how the GPU's kernels run in its place.
    #[cfg(feature = "kernel-host")]
    pub(super) kernels: Option<super::KernelOnHost>,
}

/// A device that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How it is asked for.
    pub name: String,
    /// Its maker's name, its memory and what it can, for people.
    pub description: String,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let index = match text.strip_prefix("cuda") {
            None if text == "cpu" => return Ok(DeviceChoice::Cpu),
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix(':').and_then(|index| index.parse().ok()),
            None => None,
        };
        let index = index.ok_or_else(|| "expected cpu, cuda or cuda:N".to_owned());
        index.map(DeviceChoice::Cuda)
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// # Errors
    /// [`Error::Device`] says which it is: a build without the feature `cuda`, no driver or device,
    /// or no device of that index; and what to do.
    pub fn open(self) -> Result<Device> {
        match self {
            DeviceChoice::Cpu => Ok(Device::cpu()),
            DeviceChoice::Cuda(index) => cuda::open(index),
        }
    }
}

impl Device {
    /// The processor.
    pub fn cpu() -> Device {
        Device::of(candle_core::Device::Cpu)
    }

    /// The processor in a GPU's place: networks on it are stepped and learn by the GPU's kernels,
    /// compiled for the CPU. For tests.
    #[cfg(feature = "kernel-host")]
    pub fn kernels_on_host(choice: super::KernelOnHost) -> Device {
        Device { kernels: Some(choice), ..Device::cpu() }
    }

    fn of(tensors: candle_core::Device) -> Device {
        Device {
            tensors,
            #[cfg(feature = "kernel-host")]
            kernels: None,
        }
    }
}

/// The devices that this build can use on this machine; why there are no others, if there is a
/// reason.
pub fn devices() -> (Vec<Found>, Option<String>) {
    let mut found =
        vec![Found { name: "cpu".to_owned(), description: super::Level::best().name().to_owned() }];
    let why = cuda::list(&mut found);
    (found, why.err())
}

/// How many of `n_slots` streams fit, if not all of them do; each takes so many bytes.
#[cfg(any(feature = "cuda", feature = "kernel-host", test))]
pub(super) fn room(n_slots: usize, stream_bytes: usize, free_bytes: usize) -> Result<()> {
    let fit = free_bytes / stream_bytes.max(1);
    if n_slots <= fit {
        return Ok(());
    }
    Err(Error::Device(format!(
        "{n_slots} streams need {} MiB of the device's memory, and {} MiB are free: at most {fit} \
         streams fit",
        n_slots.saturating_mul(stream_bytes).div_ceil(1 << 20),
        free_bytes >> 20
    )))
}

/// Refuses weights that do not fit.
#[cfg(any(feature = "cuda", test))]
pub(super) fn room_for_weights(bytes: usize, free_bytes: usize) -> Result<()> {
    if bytes <= free_bytes {
        return Ok(());
    }
    Err(Error::Device(format!(
        "the network's weights need {} MiB of the device's memory, and {} MiB are free: they do not \
         fit",
        bytes.div_ceil(1 << 20),
        free_bytes >> 20
    )))
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use super::{Device, Error, Found, Result};

    const MISSING: &str = "this build runs on the CPU only: build one with `cargo build --release \
                           --features cuda` (README.md, On a GPU)";

    pub fn open(index: usize) -> Result<Device> {
        Err(Error::Device(format!("cuda:{index}: {MISSING}, or leave --device out")))
    }

    pub fn list(_found: &mut Vec<Found>) -> std::result::Result<(), String> {
        Err(MISSING.to_owned())
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use candle_core::cuda_backend::cudarc::driver::CudaContext;

    use super::{Device, Error, Found, Result};
    use crate::nn::op::cuda::untracked;

    pub fn open(index: usize) -> Result<Device> {
        let n = count().map_err(Error::Device)?;
        if index >= n {
            return Err(Error::Device(format!(
                "there is no cuda:{index}: the devices are cuda:0 to cuda:{}; `dvs-stream info \
                 --devices` lists them",
                n - 1
            )));
        }
        let failed = |error| Error::Device(format!("cuda:{index} cannot be opened: {error}"));
        // A stream of its own: the default one of each thread would leave a device that two
        // threads use without order.
        candle_core::Device::new_cuda_with_stream(index)
            .and_then(untracked)
            .map(Device::of)
            .map_err(failed)
    }

    pub fn list(found: &mut Vec<Found>) -> std::result::Result<(), String> {
        for index in 0..count()? {
            let described = CudaContext::new(index).and_then(|device| {
                let (major, minor) = device.compute_capability()?;
                let (name, bytes) = (device.name()?, device.total_mem()?);
                Ok(format!("{name}, {} MiB, compute capability {major}.{minor}", bytes >> 20))
            });
            let description = described.unwrap_or_else(|error| format!("unusable: {error}"));
            found.push(Found { name: format!("cuda:{index}"), description });
        }
        Ok(())
    }

    /// The number of devices, at least 1.
    fn count() -> std::result::Result<usize, String> {
        match CudaContext::device_count() {
            Ok(n) if n > 0 => Ok(n as usize),
            Ok(_) => Err(none("the driver sees none")),
            Err(error) => Err(none(&error.to_string())),
        }
    }

    fn none(why: &str) -> String {
        format!(
            "there is no CUDA device ({why}): see whether `nvidia-smi` lists one and \
             CUDA_VISIBLE_DEVICES hides none, or run with --device cpu"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceChoice, room, room_for_weights};

    #[test]
    fn choices_read_as_they_print() {
        for (text, choice) in [
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:12", DeviceChoice::Cuda(12)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for wrong in ["", "gpu", "cuda:", "cuda0", "cuda:-1", "cpu:0"] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn says_how_many_streams_fit() {
        assert!(room(10, 1 << 20, 10 << 20).is_ok());
        let error = room(11, 1 << 20, (10 << 20) + 5).unwrap_err().to_string();
        assert!(error.contains("at most 10 streams fit"), "{error}");
    }

    #[test]
    fn says_that_weights_do_not_fit() {
        assert!(room_for_weights(10 << 20, 10 << 20).is_ok());
        let error = room_for_weights((10 << 20) + 1, 10 << 20).unwrap_err().to_string();
        assert!(error.contains("weights need 11 MiB") && error.contains("10 MiB are"), "{error}");
    }
}
