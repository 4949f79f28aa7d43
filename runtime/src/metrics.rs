//! tmp
pub struct HandlerMetrics;
impl HandlerMetrics {
    pub fn executed(&self, _: u64, _: std::time::Duration) {}
    pub fn committed(&self, _: u64, _: u64, _: std::time::Duration) {}
    pub fn retried(&self) {}
    pub fn fenced(&self) {}
    pub fn cache(&self, _: u32, _: usize) {}
}
