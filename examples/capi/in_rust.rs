//! The entropy of a row of scores, in Rust: `rustc -O --crate-type cdylib in_rust.rs`.
//!
//! What Python takes out of the capsule is handed in (`windows.py` and its test show how), so that
//! no crate is needed. With PyO3 it is `PyCapsule::import(py, c"fastsoftmax.capi._C_API")`.

use std::ffi::{c_char, c_int};

/// The beginning of `fastsoftmax_api`: what is used of it, in its order.
#[repr(C)]
pub struct Api {
    version: i64,
    implementation: *const c_char,
    softmax_float32: unsafe extern "C" fn(*const f32, *mut f32, isize, isize, f64) -> c_int,
    softmax_float64: unsafe extern "C" fn(*const f64, *mut f64, isize, isize, f64) -> c_int,
    log_softmax_float32: unsafe extern "C" fn(*const f32, *mut f32, isize, isize, f64) -> c_int,
    log_softmax_float64: unsafe extern "C" fn(*const f64, *mut f64, isize, isize, f64) -> c_int,
}

/// Return the entropy of softmax(x / temperature) in nats; NaN if an argument was wrong.
///
/// # Safety
/// `api` comes from the capsule, and x has n elements.
#[no_mangle]
pub unsafe extern "C" fn entropy(api: &Api, x: *const f64, n: usize, temperature: f64) -> f64 {
    let mut log_p = vec![0.0; n];
    let done = (api.log_softmax_float64)(x, log_p.as_mut_ptr(), 1, n as isize, temperature);
    if api.version < 1 || done != 0 {
        return f64::NAN;
    }
    -log_p.iter().filter(|l| l.is_finite()).map(|l| l.exp() * l).sum::<f64>()
}
