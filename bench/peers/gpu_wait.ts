/** One wait for everybody: until all that was submitted to a device is done. */

/**
 * Waits by mapping four bytes, which no implementation answers before the queue is empty.
 *
 * @param device The peer's own.
 */
export async function waitFor(device: GPUDevice): Promise<void> {
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
  } finally {
    source.destroy();
    staging.destroy();
  }
}
