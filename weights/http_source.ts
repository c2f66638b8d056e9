// http_source: bytes of a web resource, by ranges (RFC 9110, section 14).
// The first answer tells the size and holds most headers whole, so it is kept.
// A server that ignores Range sends everything: that is kept if it is small.
import {
  allocate,
  type ByteSource,
  checkRange,
  closedError,
  type ReadOptions,
  shortError,
} from "./byte_source.ts";
import {
  DeniedFileError,
  MissingFileError,
  quote,
  WeightsError,
} from "./errors.ts";
import { chunksOf, fetchWithin } from "./idle_limit.ts";
import { displayName } from "./location.ts";

const WHOLE_BYTES = 64 * 2 ** 20; // largest body kept when a server ignores Range
const HEAD_BYTES = 128 * 2 ** 10; // first answer: most headers, all configs

/** Options of {@linkcode openHttp}. */
export interface HttpOptions extends ReadOptions {
  /** Milliseconds that the server may send nothing, now and in later reads. Default 60,000. */
  readonly idleMs?: number | undefined;
}

/**
 * Opens an `http(s):` URL.
 *
 * @param url The URL.
 * @returns The open source. The caller closes it.
 * @throws {MissingFileError} If the server answers 404 or 410.
 * @throws {DeniedFileError} If it answers 403.
 * @throws {WeightsError} If it gives no usable answer, or none in time.
 */
export async function openHttp(
  url: URL,
  options: HttpOptions = {},
): Promise<ByteSource> {
  return await HttpSource.open(url, options);
}

class HttpSource implements ByteSource {
  readonly name: string;
  #size = 0;
  #url: URL;
  #etag: string | undefined;
  #head: Uint8Array<ArrayBuffer> = new Uint8Array(0); // the whole body if Range was ignored
  #closed = false;
  readonly #idleMs: number | undefined;

  private constructor(url: URL, idleMs: number | undefined) {
    this.#url = url;
    this.#idleMs = idleMs;
    this.name = displayName(url);
  }

  get size(): number {
    return this.#size;
  }

  static async open(
    url: URL,
    { signal, idleMs }: HttpOptions,
  ): Promise<HttpSource> {
    const source = new HttpSource(url, idleMs);
    const response = await source.#get(0, HEAD_BYTES - 1, signal);
    if (response.status === 416) { // only an empty resource cannot give byte 0
      await response.body?.cancel();
      const range = response.headers.get("content-range");
      if (range !== "bytes */0") throw source.#rangeError("bytes */0", range);
    } else if (response.status === 200) {
      source.#head = await source.#whole(response, signal);
      source.#size = source.#head.length;
    } else {
      const [first, last, size] = await source.#contentRange(response);
      const end = Math.min(HEAD_BYTES, size);
      if (first !== 0 || last !== end - 1) {
        await response.body?.cancel();
        throw source.#rangeError(
          `bytes 0-${end - 1}/${size}`,
          response.headers.get("content-range"),
        );
      }
      source.#size = size;
      source.#etag = strongTag(response);
      source.#head = await source.#body(response, end, 0, { signal });
    }
    return source;
  }

  async read(
    offset: number,
    length: number,
    options: ReadOptions = {},
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { signal } = options;
    signal?.throwIfAborted();
    if (this.#closed) throw closedError(this.name);
    checkRange(this, offset, length);
    if (offset + length > this.#head.length && length > 0) {
      const response = await this.#get(offset, offset + length - 1, signal);
      if (response.status === 206) {
        const [first, last, size] = await this.#contentRange(response);
        const want = `bytes ${offset}-${offset + length - 1}/${this.size}`;
        if (
          first !== offset || last !== offset + length - 1 || size !== this.size
        ) {
          await response.body?.cancel();
          throw this.#rangeError(want, response.headers.get("content-range"));
        }
        const etag = strongTag(response);
        if (
          this.#etag !== undefined && etag !== undefined && etag !== this.#etag
        ) {
          await response.body?.cancel();
          throw new WeightsError(
            `Cannot read ${this.name}: it must not change while it is read: current ETag is ${etag}, was ${this.#etag}`,
          );
        }
        return await this.#body(response, length, offset, options);
      }
      if (response.status !== 200) {
        await response.body?.cancel();
        throw this.#rangeError(
          `bytes ${offset}-${offset + length - 1}/${this.size}`,
          null,
        );
      }
      const whole = await this.#whole(response, signal);
      if (whole.length !== this.size) {
        throw new WeightsError(
          `Cannot read ${this.name}: it must not change while it is read: current size is ${whole.length} bytes, was ${this.size}`,
        );
      }
      this.#head = whole;
    }
    return this.#head.slice(offset, offset + length);
  }

  close(): Promise<void> {
    this.#closed = true;
    this.#head = new Uint8Array(0);
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Sends one request; the answer has status 200, 206 or 416. */
  async #get(
    first: number,
    last: number,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    let response: Response;
    try {
      response = await fetchWithin(this.#url, {
        // ranges count bytes of what is sent, so it must not be compressed
        headers: {
          "range": `bytes=${first}-${last}`,
          "accept-encoding": "identity",
        },
      }, { signal, idleMs: this.#idleMs });
    } catch (cause) {
      throw this.#networkError(cause, signal);
    }
    if ([200, 206, 416].includes(response.status)) return response;
    await response.body?.cancel();
    const status = `${response.status} ${response.statusText}`.trim();
    const Class = [404, 410].includes(response.status)
      ? MissingFileError
      : response.status === 403
      ? DeniedFileError
      : WeightsError;
    throw new Class(
      `Cannot open ${this.name}: the server must answer 206 or 200: current answer is ${status}`,
    );
  }

  async #contentRange(response: Response): Promise<[number, number, number]> {
    const text = response.headers.get("content-range");
    const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(text ?? "");
    const encoding = response.headers.get("content-encoding") ?? "identity";
    if (match !== null && encoding === "identity") {
      return [Number(match[1]), Number(match[2]), Number(match[3])];
    }
    await response.body?.cancel();
    if (match === null) {
      throw this.#rangeError("bytes <first>-<last>/<size>", text);
    }
    throw new WeightsError(
      `Cannot read ${this.name}: a range must come without compression: current Content-Encoding is ${
        quote(encoding)
      }`,
    );
  }

  /** The body of a 200: the server ignored Range. */
  async #whole(
    response: Response,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const encoded = response.headers.has("content-encoding");
    const header = response.headers.get("content-length");
    const size = encoded || header === null ? undefined : Number(header);
    if (size === undefined || size <= WHOLE_BYTES) {
      const chunks: Uint8Array[] = [];
      let total = 0;
      for await (const chunk of this.#chunks(response, signal)) {
        total += chunk.length;
        if (total > WHOLE_BYTES) break;
        chunks.push(chunk);
      }
      if (size !== undefined && total < size) {
        throw shortError(this.name, size, total, 0);
      }
      if (total <= WHOLE_BYTES) {
        const bytes = allocate(total, this.name);
        let at = 0;
        for (const chunk of chunks) {
          bytes.set(chunk, at);
          at += chunk.length;
        }
        return bytes;
      }
    }
    await response.body?.cancel().catch(() => {});
    throw new WeightsError(
      `Cannot read ${this.name}: the server must honour Range for files over ${WHOLE_BYTES} bytes: current answer is 200 with ${
        size ?? "more"
      } bytes; download it and give the path`,
    );
  }

  /** The body of a 206: exactly `length` bytes. */
  async #body(
    response: Response,
    length: number,
    offset: number,
    { signal, into }: ReadOptions,
  ): Promise<Uint8Array<ArrayBuffer>> {
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      bytes = allocate(length, this.name, into);
    } catch (error) {
      await response.body?.cancel();
      throw error;
    }
    let done = 0;
    for await (const chunk of this.#chunks(response, signal)) {
      if (done + chunk.length > length) {
        throw new WeightsError(
          `Cannot read ${this.name}: the answer must have ${length} bytes: current body is longer`,
        );
      }
      bytes.set(chunk, done);
      done += chunk.length;
    }
    if (done !== length) throw shortError(this.name, length, done, offset);
    return bytes;
  }

  #chunks(
    response: Response,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Uint8Array> {
    return chunksOf(
      response,
      { signal, idleMs: this.#idleMs },
      (cause) => this.#networkError(cause, signal),
    );
  }

  #networkError(cause: unknown, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted) return signal.reason;
    const message = cause instanceof Error ? cause.message : String(cause);
    return new WeightsError(
      `Cannot read ${this.name}: the server must send the whole answer: current ${message}`,
      { cause },
    );
  }

  #rangeError(want: string, got: string | null): WeightsError {
    return new WeightsError(
      `Cannot read ${this.name}: Content-Range must be "${want}": current ${
        got === null ? "answer has none" : quote(got)
      }`,
    );
  }
}

function strongTag(response: Response): string | undefined {
  const tag = response.headers.get("etag");
  return tag === null || tag.startsWith("W/") ? undefined : tag;
}
