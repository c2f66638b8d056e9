/** Compiled kernels of a device, each made once for its constants. */
import type { Kernel, Params, PlannedKernel } from "./backend.ts";
import { StageTextures } from "./stage_textures.ts";

/** How tensors are bound; other letters of `Kernel.bindings` are stages. */
const ACCESS: Readonly<Record<string, Partial<GPUBindGroupLayoutEntry>>> = {
  r: { buffer: { type: "read-only-storage" } },
  w: { buffer: { type: "storage" } },
};

/** A kernel and what it was compiled to. */
export interface Compiled {
  /** The kernel. */
  readonly kernel: Kernel;
  /** What it is on the device. */
  readonly pipeline: GPUComputePipeline;
}

/** What each run of a kernel needs, worked out once. */
interface Prepared {
  readonly params: readonly (readonly [name: string, float: boolean])[];
  /** By constants. */
  readonly pipelines: Map<string, GPUComputePipeline>;
}

/** Pipelines by kernel and constants, and the layouts of their bindings. */
export class Pipelines {
  readonly #device: GPUDevice;
  readonly #kernels = new Map<Kernel, Prepared>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  #checks: Promise<void>[] = [];
  #error: Error | undefined;

  /** Starts with none. */
  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Why a kernel could not be compiled, once that is known; see `settled`. */
  get error(): Error | undefined {
    return this.#error;
  }

  /** Waits for the device's word on everything that was compiled. */
  async settled(): Promise<void> {
    await Promise.all(this.#checks.splice(0));
  }

  /** Tensors and stages of `Kernel.bindings`, then the uniform struct. */
  layout(bindings: string): GPUBindGroupLayout {
    let layout = this.#layouts.get(bindings);
    if (!layout) {
      const entries: GPUBindGroupLayoutEntry[] = [...bindings].map((
        letter,
        binding,
      ) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        ...ACCESS[letter] ?? StageTextures.layout(letter),
      }));
      entries.push({
        binding: bindings.length,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: "uniform", hasDynamicOffset: true },
      });
      layout = this.#device.createBindGroupLayout({ entries });
      this.#layouts.set(bindings, layout);
    }
    return layout;
  }

  /** The fields of a kernel's uniform struct, in order, and which of them are floats. */
  params(kernel: Kernel): Prepared["params"] {
    return this.#of(kernel).params;
  }

  #of(kernel: Kernel): Prepared {
    let known = this.#kernels.get(kernel);
    if (!known) {
      const params = kernel.params.map((field) => {
        const float = field.endsWith(":f");
        return [float ? field.slice(0, -2) : field, float] as const;
      });
      this.#kernels.set(kernel, known = { params, pipelines: new Map() });
    }
    return known;
  }

  /** The pipeline of a kernel, compiled now if it was not before. */
  get(kernel: Kernel, constants: Params): GPUComputePipeline {
    const { pipelines } = this.#of(kernel);
    const key = keyOf(constants);
    let pipeline = pipelines.get(key);
    if (!pipeline) {
      this.#device.pushErrorScope("validation");
      pipeline = this.#device.createComputePipeline(
        this.#describe(kernel, constants),
      );
      this.#checks.push(
        this.#device.popErrorScope().then((error) => {
          if (error) this.#fail(kernel, constants, error.message);
        }),
      );
      pipelines.set(key, pipeline);
    }
    return pipeline;
  }

  /** Compiles kernels side by side. Returns those that could be. */
  async prepare(kernels: readonly PlannedKernel[]): Promise<Compiled[]> {
    const made = await Promise.all(
      kernels.map(async ({ kernel, constants }) => {
        const { pipelines } = this.#of(kernel);
        const key = keyOf(constants);
        try {
          const pipeline = pipelines.get(key) ??
            await this.#device.createComputePipelineAsync(
              this.#describe(kernel, constants),
            );
          pipelines.set(key, pipeline);
          return { kernel, pipeline };
        } catch (error) {
          this.#fail(kernel, constants, (error as Error).message);
          return undefined;
        }
      }),
    );
    return made.filter((x) => x !== undefined);
  }

  #describe(kernel: Kernel, constants: Params): GPUComputePipelineDescriptor {
    return {
      label: labelOf(kernel, constants),
      layout: this.#device.createPipelineLayout({
        bindGroupLayouts: [this.layout(kernel.bindings)],
      }),
      compute: {
        module: this.#device.createShaderModule({
          label: kernel.name,
          code: kernel.wgsl,
        }),
        entryPoint: "main",
        constants: { ...constants },
      },
    };
  }

  #fail(kernel: Kernel, constants: Params, message: string): void {
    this.#error ??= new Error(
      `Cannot compile ${labelOf(kernel, constants)}: ${message}`,
    );
  }
}

/** Made for each run: JSON takes three times as long. */
function keyOf(constants: Params): string {
  let key = "";
  for (const name in constants) key += `${name} ${constants[name]} `;
  return key;
}

function labelOf(kernel: Kernel, constants: Params): string {
  return `${kernel.name} ${JSON.stringify(constants)}`;
}
