// unless_aborted: waiting that a signal ends.

/**
 * Waits for something, no longer than a signal lets it.
 *
 * @throws The signal's reason, or what `pending` is rejected with.
 */
export async function unlessAborted<T>(
  pending: Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const stop = (): void => reject(signal!.reason);
  if (signal?.aborted) stop();
  signal?.addEventListener("abort", stop);
  try {
    return await Promise.race([aborted, pending]);
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}
