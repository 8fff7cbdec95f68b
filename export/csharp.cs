// Made from manifest.json by `python -m export csharp bundle/`. .NET 6 or later:
//   dotnet add package Microsoft.ML.OnnxRuntime
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Security.Cryptography;
using System.Text.Json;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;

public sealed class SignVerBundle : IDisposable
{
    readonly JsonDocument manifest;
    readonly Dictionary<string, InferenceSession> sessions = new Dictionary<string, InferenceSession>();

    // Opens a bundle; throws where a file is not the one of the manifest.
    public SignVerBundle(string folder)
    {
        manifest = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "manifest.json")));
        if (manifest.RootElement.GetProperty("schema_version").GetInt32() != 1)
            throw new InvalidDataException("manifest.json: not of schema version 1");
        foreach (var model in manifest.RootElement.GetProperty("models").EnumerateObject())
        {
            var file = model.Value.GetProperty("file").GetString();
            if (Path.GetFileName(file) != file) throw new InvalidDataException(file + ": leaves the bundle");
            var bytes = File.ReadAllBytes(Path.Combine(folder, file));
            using (var sha = SHA256.Create())
            {
                var found = BitConverter.ToString(sha.ComputeHash(bytes)).Replace("-", "").ToLowerInvariant();
                if (found != model.Value.GetProperty("sha256").GetString())
                    throw new InvalidDataException(file + ": not the bytes of the manifest");
            }
            sessions[model.Name] = new InferenceSession(bytes);
        }
    }

    // models

    public double Threshold(string model, string name)
    {
        return Step("models", model, "thresholds", name).GetProperty("value").GetDouble();
    }

    // Pixels [height, width, 3] of a page, made smaller as the detector's preprocessing says.
    public byte[] ReduceBlocks(byte[] page, ref int height, ref int width)
    {
        var step = Step("models", "detector", "preprocessing").EnumerateArray()
            .First(one => one.GetProperty("step").GetString() == "reduce_blocks");
        var size = step.GetProperty("input_size").EnumerateArray().Select(one => one.GetDouble()).ToArray();
        var divisor = step.GetProperty("divisor").GetDouble();
        var n = (int)Math.Floor(Math.Max(height / size[0], width / size[1]) / divisor);
        if (n < step.GetProperty("least").GetInt32()) return page;
        int rows = (height + n - 1) / n, columns = (width + n - 1) / n;
        var reduced = new byte[rows * columns * 3];
        for (var row = 0; row < rows; row++)
        for (var column = 0; column < columns; column++)
        for (var channel = 0; channel < 3; channel++)
        {
            int sum = 0, count = 0;
            for (var y = row * n; y < Math.Min(height, (row + 1) * n); y++)
            for (var x = column * n; x < Math.Min(width, (column + 1) * n); x++, count++)
                sum += page[(y * width + x) * 3 + channel];
            reduced[(row * columns + column) * 3 + channel] = (byte)((sum + count / 2) / count);
        }
        height = rows;
        width = columns;
        return reduced;
    }

    // 1 for one hand, less for two; genuine from Threshold("extractor", "cosine") on.
    public static double Cosine(float[] first, float[] second)
    {
        double dot = 0, one = 0, two = 0;
        for (var place = 0; place < first.Length; place++)
        {
            dot += first[place] * second[place];
            one += first[place] * first[place];
            two += second[place] * second[place];
        }
        return dot / Math.Sqrt(one * two);
    }

    public void Dispose()
    {
        foreach (var session in sessions.Values) session.Dispose();
        manifest.Dispose();
    }

    JsonElement Step(params string[] names)
    {
        return names.Aggregate(manifest.RootElement, (element, name) => element.GetProperty(name));
    }

    static NamedOnnxValue Value<T>(string name, T[] values, int[] shape)
    {
        return NamedOnnxValue.CreateFromTensor(name, new DenseTensor<T>(values, shape));
    }

    static T[] Values<T>(IEnumerable<DisposableNamedOnnxValue> found, string name)
    {
        return found.First(one => one.Name == name).AsTensor<T>().ToArray();
    }
}
