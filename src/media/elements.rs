//! The elements of ours that stand behind decoders.

use std::sync::Once;

/// Makes them known to this process; a program that uses a part of this library need not do it itself.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if gst::ElementFactory::find("lippicture").is_none()
            && let Err(error) = gstlipstream::plugin_register_static()
        {
            tracing::error!("the elements of Lipstream cannot be registered: {error}");
        }
    });
}
