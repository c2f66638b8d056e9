/**
 * The failures of a GPU that a caller can act on.
 *
 * @module
 */

/** There is no adapter, or none that can run the kernels; the message says what to install. */
export class NoDeviceError extends Error {
  /** The class name, as it stands in front of the message. */
  override readonly name = "NoDeviceError";
}

/** The device went away (driver reset, timeout, unplugged): open a new one and start over. */
export class DeviceLostError extends Error {
  /** The class name, as it stands in front of the message. */
  override readonly name = "DeviceLostError";
}

/** The device has not enough memory for a buffer: use smaller images, f16 weights or fewer samples. */
export class DeviceMemoryError extends Error {
  /** The class name, as it stands in front of the message. */
  override readonly name = "DeviceMemoryError";
}
