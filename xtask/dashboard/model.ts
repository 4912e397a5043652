// What a dashboard of Grafana's is, by its own types (@grafana/schema, Apache-2.0), with what they leave open closed: options of
// panels by their kind, and queries of Prometheus. Nothing else may be in one: a field that Grafana does not know is an error.
import type { AnnotationQuery, Dashboard as AnyDashboard, DataQuery, Panel as AnyPanel } from "@grafana/schema";
import type { Options as StatOptions } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type {
  Options as StateTimelineOptions,
  FieldConfig as StateTimelineField,
} from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type {
  Options as TableOptions,
  FieldConfig as TableField,
} from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type {
  Options as TimeSeriesOptions,
  FieldConfig as TimeSeriesField,
} from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** As it is in a file: the values of enumerations are strings there. */
type Json<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends Array<infer U>
      ? Json<U>[]
      : T extends object
        ? { [K in keyof T]: Json<T[K]> }
        : T;

/** Grafana fills in what is left out of a panel's options. */
type Part<T> = T extends Array<infer U> ? Part<U>[] : T extends object ? { [K in keyof T]?: Part<T[K]> } : T;

/** Of the Prometheus data source, as far as we use it. */
type Query = DataQuery & {
  expr: string;
  legendFormat?: string;
  instant?: boolean;
  format?: "table";
  interval?: string;
};
/** The title is the Prometheus data source's. */
type Annotation = AnnotationQuery<Query> & { titleFormat?: string };

type Row = {
  type: "row";
  id: number;
  title: string;
  collapsed: boolean;
  gridPos: AnyPanel["gridPos"];
  panels: [];
};
type Fields = NonNullable<AnyPanel["fieldConfig"]>;
type Panel<Type, Options, Custom> = Omit<AnyPanel, "fieldConfig" | "options" | "targets" | "type"> & {
  type: Type;
  targets: Query[];
  options: Part<Options>;
  fieldConfig: Omit<Fields, "defaults"> & {
    defaults: Omit<Fields["defaults"], "custom"> & { custom?: Part<Custom> };
  };
};
type AnyKind =
  | Row
  | Panel<"stat", StatOptions, Record<string, never>>
  | Panel<"state-timeline", StateTimelineOptions, StateTimelineField>
  | Panel<"table", TableOptions, TableField>
  | Panel<"timeseries", TimeSeriesOptions, TimeSeriesField>;

export type Dashboard = Json<
  Omit<AnyDashboard, "annotations" | "panels"> & { annotations: { list: Annotation[] }; panels: AnyKind[] }
>;
