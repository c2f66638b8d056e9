/** Several requests at the same time on the cpu backend, a Web Worker each. */
import { WeightsError } from "../weights/errors.ts";
import { unlessAborted } from "../weights/unless_aborted.ts";
import type { GenerateResult, StepInfo } from "./generate.ts";
import type { GenerateRequest } from "./request.ts";

/** What a worker is sent. */
export interface WorkerTask {
  /** As for `open`. */
  readonly location: string;
  /** What to paint. */
  readonly request: GenerateRequest;
}

/** What a worker sends back: any number of passes and steps, then a result or an error. */
export type WorkerAnswer =
  | { readonly pass: { readonly done: number; readonly total: number } }
  | { readonly step: WorkerStep }
  | { readonly result: GenerateResult }
  | {
    readonly error: {
      readonly name: string;
      readonly message: string;
      readonly stack: string;
    };
  };

/** What a step tells from another thread. */
export type WorkerStep = Omit<StepInfo, "preview">;

/** Options of `generateInWorkers`. */
export interface WorkerOptions {
  /** Ends the workers at once. */
  readonly signal?: AbortSignal | undefined;
  /** Called after each step with the request's index. */
  readonly onStep?: ((index: number, step: WorkerStep) => void) | undefined;
  /** Called after each network pass with the passes of all requests, done and in all. */
  readonly onPass?: ((done: number, total: number) => void) | undefined;
}

const BUILT_IN: Readonly<Record<string, new (message: string) => Error>> = {
  TypeError,
  RangeError,
  SyntaxError,
  WeightsError,
};

/**
 * Paints every request in a worker of its own, on the cpu backend. A worker takes one core and the
 * memory of one model. The first failure, also of a callback, ends all of them. Workers know the methods of
 * this library, and none that the page registered.
 *
 * @param location As for `open`; each worker opens the model itself.
 * @returns The results in the order of the requests.
 * @throws Whatever `open` or `generate` throws in a worker.
 */
export async function generateInWorkers(
  location: string | URL,
  requests: readonly GenerateRequest[],
  options: WorkerOptions = {},
): Promise<GenerateResult[]> {
  const { signal, onStep, onPass } = options;
  signal?.throwIfAborted();
  const workers: Worker[] = [];
  const passes = requests.map(() => ({ done: 0, total: 0 }));
  const sum = (key: "done" | "total") =>
    passes.reduce((all, p) => all + p[key], 0);
  const paint = (request: GenerateRequest, index: number) =>
    new Promise<GenerateResult>((resolve, reject) => {
      const url = new URL("./worker.ts", import.meta.url);
      const worker = new Worker(url, { type: "module" });
      workers.push(worker);
      const hear = (answer: WorkerAnswer): void => {
        if ("pass" in answer) {
          passes[index] = answer.pass;
          // The total is known once each worker has said its own.
          if (passes.every((p) => p.total > 0)) {
            onPass?.(sum("done"), sum("total"));
          }
        } else if ("step" in answer) onStep?.(index, answer.step);
        else if ("result" in answer) resolve(answer.result);
        else reject(rebuild(answer.error));
      };
      worker.onmessage = ({ data }: MessageEvent<WorkerAnswer>) => {
        try {
          hear(data);
        } catch (error) { // of a callback
          reject(error);
        }
      };
      worker.onerror = (event) => {
        event.preventDefault(); // or Deno ends the process
        reject(
          new Error(
            `Cannot run a worker: ${url.href} must load: current error is ${event.message}`,
          ),
        );
      };
      const task: WorkerTask = { location: String(location), request };
      worker.postMessage(task);
    });
  try {
    return await unlessAborted(Promise.all(requests.map(paint)), signal);
  } finally {
    for (const worker of workers) worker.terminate();
  }
}

function rebuild(
  { name, message, stack }: { name: string; message: string; stack: string },
): Error {
  const error = new (BUILT_IN[name] ?? Error)(message);
  if (error.name !== name) error.name = name;
  error.stack = stack;
  return error;
}
