// esbuild and this package do not agree on what its default is.
export { Scrollbars as default } from "./node_modules/react-custom-scrollbars-2/lib/index.js";
