// idle_limit: a server that sends nothing for too long is given up, before its answer and inside it.

import { unlessAborted } from "./unless_aborted.ts";

/** Cancelling, and how long a server may be silent. */
export interface IdleOptions {
  /** Cancels at once. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds without an answer, or the next part of it. Default 60,000. */
  readonly idleMs?: number | undefined;
}

const IDLE_MS = 60_000;
const MOST_MS = 2 ** 31 - 1; // a timer of more would end at once

/**
 * `fetch`, given up where no answer begins in time.
 *
 * @param init As `fetch` takes it, without a signal.
 * @returns The answer; read its body with {@linkcode chunksOf}, which also sees the signal.
 * @throws What the signal says, what `fetch` throws, or an error that says for how long nothing came.
 */
export async function fetchWithin(
  url: URL,
  init: RequestInit,
  options: IdleOptions,
): Promise<Response> {
  options.signal?.throwIfAborted();
  const stop = new AbortController();
  try {
    return await within(fetch(url, { ...init, signal: stop.signal }), options);
  } catch (cause) {
    stop.abort(cause);
    throw cause;
  }
}

/**
 * The body of an answer as it comes. It is cancelled where nothing comes in time, where the signal says
 * so, and where the caller stops early.
 *
 * @param fail Makes the error to throw of the one that ended the body.
 */
export async function* chunksOf(
  response: Response,
  options: IdleOptions,
  fail: (cause: unknown) => unknown,
): AsyncGenerator<Uint8Array> {
  const { signal } = options;
  if (response.body === null) return;
  const reader = response.body.getReader();
  try {
    while (true) {
      signal?.throwIfAborted();
      let step: ReadableStreamReadResult<Uint8Array>;
      try {
        step = await within(reader.read(), options);
      } catch (cause) {
        signal?.throwIfAborted();
        throw fail(cause);
      }
      signal?.throwIfAborted();
      if (step.done) return;
      yield step.value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** Waits for one thing, no longer than the limit and the signal let it. */
async function within<T>(
  pending: Promise<T>,
  { signal, idleMs = IDLE_MS }: IdleOptions,
): Promise<T> {
  const { promise: silent, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => reject(new Error(`one sent nothing for ${idleMs / 1000} s`)),
    Math.min(idleMs, MOST_MS),
  );
  try {
    return await unlessAborted(Promise.race([pending, silent]), signal);
  } finally {
    clearTimeout(timer);
  }
}
