/** One wait for everybody: until all that was submitted to a device is done, and done without error. */

/**
 * Waits by mapping four bytes, which no implementation answers before the queue is empty.
 *
 * @param device The peer's own; its errors, which runtimes do not report, are kept from now on.
 * @returns Waits; rejects with the first error of the device.
 */
export function queueWait(device: GPUDevice): () => Promise<void> {
  let failed: Error | undefined;
  device.addEventListener("uncapturederror", (event) => {
    event.preventDefault();
    failed ??= new Error((event as GPUUncapturedErrorEvent).error.message);
  });
  return async () => {
    const staging = device.createBuffer({
      size: 4,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    const source = device.createBuffer({
      size: 4,
      usage: GPUBufferUsage.COPY_SRC,
    });
    try {
      const encoder = device.createCommandEncoder();
      encoder.copyBufferToBuffer(source, 0, staging, 0, 4);
      device.queue.submit([encoder.finish()]);
      await staging.mapAsync(GPUMapMode.READ);
      if (failed) throw failed;
    } finally {
      source.destroy();
      staging.destroy();
    }
  };
}
