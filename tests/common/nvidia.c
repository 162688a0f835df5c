/* NVIDIA's management library as far as Lipstream asks it: two cards, or FAKE_CARDS, of a driver whose version is in FAKE_DRIVER. */
#include <stdlib.h>
#include <string.h>

struct memory { unsigned version; unsigned long long total, reserved, free, used; };
struct utilization { unsigned gpu, memory; };

int nvmlInit_v2(void) { return getenv("FAKE_NVML_BROKEN") ? 9 : 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, getenv("FAKE_DRIVER"), length); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13000; return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = getenv("FAKE_CARDS") ? atoi(getenv("FAKE_CARDS")) : 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(size_t)(index + 1); return 0; }
int nvmlDeviceGetName(void *device, char *text, unsigned length) { (void)device; strncpy(text, "Fake H100", length); return 0; }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) { (void)device; *major = 9; *minor = 0; return 0; }
int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory *memory) {
    memory->total = 80ull << 30;
    memory->used = (unsigned long long)(size_t)device << 30;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, struct utilization *rates) { rates->gpu = 25 * (unsigned)(size_t)device; return 0; }
/* 3: not supported, as of a virtual card. */
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { *milliwatts = 350500; return (size_t)device == 1 ? 0 : 3; }
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius) { (void)device; (void)sensor; *celsius = 41; return 0; }
