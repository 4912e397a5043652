// Draws deploy/monitoring/dashboard.json with Grafana's own components (@grafana/ui), from what Prometheus has answered to its
// queries. The grid, and what connects data with components, is here; in Grafana, it is part of the server.
import {
  FieldColorModeId, FieldType, ThemeContext, createTheme, dateTime, getDisplayProcessor, reduceField,
  toDataFrame,
} from "@grafana/data";
import { BigValue, GlobalStyles, PanelChrome, Table, TimeSeries } from "@grafana/ui";
import { createRoot } from "react-dom/client";
import dashboard from "./dashboard.json";
import data from "./data.json";

const theme = createTheme({ colors: { mode: "light" } });
/** Grafana's grid: 24 columns, rows of 30 pixels, 8 pixels between. */
const [WIDTH, COLUMNS, ROW, GAP] = [1440, 24, 30, 8];
const column = (WIDTH + GAP) / COLUMNS;
const range = { from: dateTime(data.since * 1000), to: dateTime(data.until * 1000), raw: { from: "", to: "" } };

/** What Grafana's legend makes of a format. */
const named = (format, labels) => format.replaceAll(/\{\{(\w+)\}\}/g, (_, name) => labels[name]);

function config(panel, extra) {
  const { custom, ...rest } = panel.fieldConfig.defaults;
  // What Grafana fills in.
  return { color: { mode: FieldColorModeId.PaletteClassic }, ...rest, ...extra, custom: { ...custom } };
}

function prepared(field) {
  field.display = getDisplayProcessor({ field, theme, timeZone: "utc" });
  return field;
}

/** One frame for each series, of all queries. */
function frames(panel) {
  const answers = data.answers.filter((answer) => answer.panel === panel.id);
  const all = answers.flatMap((answer) => {
    const format = panel.targets.find((target) => target.refId === answer.query).legendFormat;
    return answer.series.map(([labels, points]) => {
      const frame = toDataFrame({
        refId: answer.query,
        fields: [
          { name: "Time", type: FieldType.time, values: points.map(([time]) => time * 1000) },
          {
            name: "Value", type: FieldType.number, labels, values: points.map(([, value]) => value),
            config: config(panel, format ? { displayNameFromDS: named(format, labels) } : {}),
          },
        ],
      });
      return frame;
    });
  });
  all.forEach((frame, index) => {
    frame.fields[1].state = { seriesIndex: index };
    frame.fields.forEach(prepared);
  });
  return all;
}

function Stat({ panel, width, height }) {
  const field = frames(panel)[0].fields[1];
  field.config.color = { mode: FieldColorModeId.Thresholds };
  prepared(field);
  const calc = panel.options.reduceOptions.calcs[0];
  const value = field.display(reduceField({ field, reducers: [calc] })[calc]);
  return (
    <BigValue
      value={value} width={width} height={height} theme={theme} colorMode={panel.options.colorMode}
      graphMode={panel.options.graphMode} justifyMode={panel.options.justifyMode} textMode={panel.options.textMode}
    />
  );
}

function Rows({ panel, width, height }) {
  const { excludeByName, renameByName, indexByName } = panel.transformations[0].options;
  const series = data.answers.find((answer) => answer.panel === panel.id).series;
  const names = Object.keys(indexByName).sort((a, b) => indexByName[a] - indexByName[b]);
  const fields = names.filter((name) => !excludeByName[name]).map((name) => ({
    name: renameByName[name] ?? name, type: FieldType.string, config: config(panel, {}),
    values: series.map(([labels]) => labels[name]),
  }));
  const frame = toDataFrame({ fields });
  frame.fields.forEach(prepared);
  return <Table data={frame} width={width} height={height} initialSortBy={panel.options.sortBy} />;
}

function Curves({ panel, width, height }) {
  const legend = { showLegend: true, ...panel.options.legend };
  return (
    <TimeSeries
      frames={frames(panel)} width={width} height={height} timeRange={range} timeZone="utc" legend={legend} options={panel.options}
    />
  );
}

const KINDS = { stat: Stat, table: Rows, timeseries: Curves };

function Place({ panel }) {
  const { x, y, w, h } = panel.gridPos;
  const [width, height] = [w * column - GAP, h * (ROW + GAP) - GAP];
  const style = { position: "absolute", left: x * column, top: y * (ROW + GAP), width, height };
  if (panel.type === "row") {
    return <div style={{ ...style, ...theme.typography.h6, padding: 4 }}>{panel.title}</div>;
  }
  const Kind = KINDS[panel.type];
  return (
    <div style={style}>
      <PanelChrome title={panel.title} width={width} height={height}>
        {(width, height) => <Kind panel={panel} width={width} height={height} />}
      </PanelChrome>
    </div>
  );
}

const shown = dashboard.panels.filter((panel) => panel.gridPos.y < UNTIL);
createRoot(document.getElementById("root")).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <div style={{ position: "relative", width: WIDTH, margin: 8 }}>
      {shown.map((panel) => <Place key={panel.id} panel={panel} />)}
    </div>
  </ThemeContext.Provider>,
);
