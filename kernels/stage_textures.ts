/** The textures that `Backend.stage` fills, on a device. */
import {
  STAGE_SIZE,
  type StageName,
  type StorageType,
  type Tensor,
} from "./backend.ts";
import { type Pool, STAGE_ROW, type StageKey, Stages } from "./pool.ts";

/** Formats of stages. */
const TEXELS = { f32: "rgba32float", f16: "rgba16float" } as const;
/** Letters of `Kernel.bindings` that are stages. */
const LETTERS: Readonly<Record<string, StageKey>> = {
  a: "a f32",
  b: "b f32",
  h: "a f16",
};

/** Part of a buffer that was copied to a stage. */
interface Staged {
  readonly buffer: GPUBuffer;
  readonly first: number;
  readonly count: number;
}

/** What the textures need of their device's backend. */
export interface StageHost {
  /** Makes the textures. */
  readonly device: GPUDevice;
  /** Counts their bytes. */
  readonly pool: Pool<GPUBuffer>;
  /** Told before a texture is replaced: nothing that is recorded may still need it. */
  readonly beforeResize: () => void;
  /** Where copies may be recorded. */
  readonly encoder: () => GPUCommandEncoder;
}

/** Copies of tensors, or parts of them, that kernels read as texels of four numbers. */
export class StageTextures {
  readonly #host: StageHost;
  readonly #sizes: Stages<GPUBuffer>;
  readonly #textures = new Map<StageKey, GPUTexture>();
  readonly #views = new Map<StageKey, GPUTextureView>();
  /** What a stage still holds a copy of. */
  readonly #staged = new Map<StageKey, Staged>();

  /** Starts with none. */
  constructor(host: StageHost) {
    this.#host = host;
    this.#sizes = new Stages(host.pool, (key, rows) => this.#resize(key, rows));
  }

  /**
   * How a letter of `Kernel.bindings` is bound if it is a stage: as storage that is only read, which lavapipe
   * fetches in half the instructions of a sampled texture, whose level of detail it works out for each lane.
   */
  static layout(letter: string): Partial<GPUBindGroupLayoutEntry> | undefined {
    const key = LETTERS[letter];
    return key &&
      { storageTexture: { access: "read-only", format: formatOf(key) } };
  }

  /** Whether a letter of `Kernel.bindings` is a stage. */
  static has(letter: string): boolean {
    return letter in LETTERS;
  }

  /** The texture of a letter of `Kernel.bindings`, if it is a stage. */
  view(letter: string): GPUTextureView | undefined {
    const key = LETTERS[letter];
    return key && this.#views.get(key);
  }

  /** Makes sure that there are textures for the stages among the letters. */
  need(letters: string): void {
    for (const letter of letters) {
      const key = LETTERS[letter];
      if (!key) continue;
      const [name, type] = key.split(" ") as [StageName, StorageType];
      this.#sizes.fit(name, type, 4);
    }
  }

  /** The copy that `Backend.stage` needs; none of what is there already. */
  fill(
    name: StageName,
    from: Tensor,
    first: number,
    count: number,
  ): (() => void) | undefined {
    const most = STAGE_SIZE[from.type];
    if (count > most) {
      throw new RangeError(
        `Cannot stage [${from.shape}]: at most ${most} numbers fit: current ${count}`,
      );
    }
    const key: StageKey = `${name} ${from.type}`;
    this.#sizes.fit(name, from.type, count);
    const texture = this.#textures.get(key)!;
    const bytes = from.type === "f16" ? 2 : 4;
    const buffer = from.storage as GPUBuffer;
    const held = this.#staged.get(key);
    if (
      held?.buffer === buffer && held.first === first && held.count >= count
    ) {
      return undefined;
    }
    this.#staged.set(key, { buffer, first, count });
    const texels = Math.ceil(count / 4);
    const rows = Math.floor(texels / STAGE_ROW.used);
    // Whole rows, then what is left.
    const parts = ([
      [0, STAGE_ROW.used, rows],
      [rows, texels % STAGE_ROW.used, 1],
    ] as const).filter(([, width, height]) => width && height).map((
      [y, width, height],
    ) => ({
      source: {
        buffer,
        offset: bytes * (first + 4 * STAGE_ROW.used * y),
        bytesPerRow: 4 * bytes * STAGE_ROW.used,
      },
      target: { texture, origin: [0, y] },
      size: [width, height],
    }));
    return () => {
      const encoder = this.#host.encoder();
      for (const { source, target, size } of parts) {
        encoder.copyBufferToTexture(source, target, size);
      }
    };
  }

  /** All copies are old. */
  forgetAll(): void {
    this.#staged.clear();
  }

  /** A buffer gets new numbers: copies of it are old. */
  forget(buffer: GPUBuffer): void {
    for (const [key, held] of this.#staged) {
      if (held.buffer === buffer) this.#staged.delete(key);
    }
  }

  /** Gives the textures back to the device. */
  free(): void {
    this.#sizes.free();
  }

  #resize(key: StageKey, rows: number): void {
    this.#host.beforeResize();
    this.#staged.delete(key);
    this.#textures.get(key)?.destroy();
    this.#textures.delete(key);
    this.#views.delete(key);
    if (rows === 0) return;
    const texture = this.#host.device.createTexture({
      label: `stage ${key}`,
      size: [STAGE_ROW.all, rows],
      format: formatOf(key),
      usage: GPUTextureUsage.COPY_DST | GPUTextureUsage.STORAGE_BINDING,
    });
    this.#textures.set(key, texture);
    this.#views.set(key, texture.createView());
  }
}

function formatOf(key: StageKey): GPUTextureFormat {
  return TEXELS[key.endsWith("f16") ? "f16" : "f32"];
}
