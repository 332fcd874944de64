package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// alert returns the verbs of alerts.
func (a *app) alert() *cobra.Command {
	create := group("create", "Add somewhere that alerts are sent to", a.channelEmail(), a.channelWebhook())
	return group("alert", "What is told to people about health: rules, thresholds, channels, silences",
		a.alertList(), a.threshold(),
		group("rule", "Which causes of health are told, and when", a.ruleList(), a.ruleSet(), a.ruleReset()),
		group("channel", "Mail servers and webhooks that alerts are sent to", create, a.channelList(), a.channelTest(), a.channelDelete()),
		group("silence", "Alerts that are not told for a while", a.silenceCreate(), a.silenceList(), a.silenceDelete()))
}

func (a *app) alertList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the causes of health that last, and whether they were told", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.Alert, *string, error) {
			l, err := client.Get[client.AlertList](api.ListAlerts(ctx, &client.ListAlertsParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"STATE", "LEVEL", "OBJECT", "CODE", "SINCE", "RULE", "TEXT"}, func(v client.Alert) []string {
			return []string{string(v.State), string(v.Level), v.Object, v.Code, formatTime(&v.Since), dash(v.Rule), v.Text}
		})
	})
	return cmd
}

func (a *app) ruleList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the rules; of several that match a cause the first decides", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.AlertRule, *string, error) {
			l, err := client.Get[client.AlertRuleList](api.ListAlertRules(ctx, &client.ListAlertRulesParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "LEVEL", "AFTER", "REMIND", "TOLD", "CODES"}, ruleRow)
	})
	return cmd
}

func ruleRow(r client.AlertRule) []string {
	level, remind := "any", "never"
	if r.Level != nil {
		level = string(*r.Level)
	}
	if r.RemindMs > 0 {
		remind = formatMillis(r.RemindMs)
	}
	return []string{r.Name, level, formatMillis(r.AfterMs), remind, yesNo(!r.Off), strings.Join(r.Codes, ",")}
}

func (a *app) ruleSet() *cobra.Command {
	var codes []string
	var level string
	var after, remind time.Duration
	var off, on bool
	cmd := &cobra.Command{
		Use:     "set NAME",
		Short:   "Change a rule, or make one",
		Long:    "Change a rule, or make one, which needs --codes and decides before the defaults. What is not given stays as it is.",
		Example: "  ovgate alert rule set cache --codes 'read_cache' --after 2h --remind 0",
		Args:    names("NAME"),
	}
	f := cmd.Flags()
	f.StringSliceVar(&codes, "codes", nil, "codes of causes, as status shows them; * stands for any text")
	f.StringVar(&level, "level", "", "only causes of level warning or error; any for both")
	f.DurationVar(&after, "after", 0, "for how long a cause has to last")
	f.DurationVar(&remind, "remind", 0, "until it is told again while it lasts; 0: never")
	f.BoolVar(&off, "off", false, "do not tell what it matches")
	f.BoolVar(&on, "on", false, "tell what it matches")
	cmd.MarkFlagsMutuallyExclusive("off", "on")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		var in client.AlertRuleInput
		if f.Changed("codes") {
			in.Codes = &codes
		}
		if f.Changed("level") {
			l := client.AlertRuleInputLevel(level)
			if level == "any" {
				l = ""
			}
			in.Level = &l
		}
		if f.Changed("after") {
			in.AfterMs = new(after.Milliseconds())
		}
		if f.Changed("remind") {
			in.RemindMs = new(remind.Milliseconds())
		}
		if on || off {
			in.Off = new(off)
		}
		r, err := client.Get[client.AlertRule](api.SetAlertRule(ctx, args[0], in))
		if err != nil {
			return err
		}
		row := ruleRow(r)
		return printOne(a, r, [][]string{{"name", row[0]}, {"level", row[1]}, {"after", row[2]}, {"remind", row[3]}, {"told", row[4]}, {"codes", row[5]}})
	})
	return cmd
}

func (a *app) ruleReset() *cobra.Command {
	cmd := &cobra.Command{Use: "reset NAME", Short: "Make a default rule as it was, or delete another one", Args: names("NAME")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		return client.Done(api.ResetAlertRule(ctx, args[0]))
	})
	return cmd
}

func (a *app) channelEmail() *cobra.Command {
	var in client.AlertChannelInput
	var host, user, from, security, ca string
	var to []string
	var port int
	var stdin bool
	cmd := &cobra.Command{
		Use:     "email NAME --host HOST --from ADDRESS --to ADDRESS",
		Short:   "Send alerts by mail",
		Example: "  ovgate alert channel create email ops --host mail.example.org --user ovgate --secret-stdin --from ovgate@example.org --to ops@example.org < password",
		Args:    names("NAME"),
	}
	f := cmd.Flags()
	f.StringVar(&host, "host", "", "the mail server")
	f.IntVar(&port, "port", 587, "its port")
	f.StringVar(&security, "security", "starttls", "starttls, tls or none; without TLS there is no sign-in")
	f.StringVar(&user, "user", "", "user at the mail server (default no sign-in)")
	f.BoolVar(&stdin, "secret-stdin", false, "read the user's password from standard input")
	f.StringVar(&from, "from", "", "address that alerts come from")
	f.StringSliceVar(&to, "to", nil, "addresses that they go to")
	f.StringVar(&ca, "ca", "", "file of certificates in PEM to trust in place of the system's")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in.Name, in.Kind = args[0], client.AlertChannelKindEmail
		in.Host, in.Port, in.User, in.From, in.To = given(host), &port, given(user), given(from), &to
		in.Security = new(client.AlertChannelInputSecurity(security))
		if stdin {
			s, err := a.secretLine(ctx, "password")
			if err != nil {
				return err
			}
			in.Secret = &s
		}
		return a.createChannel(ctx, api, in, ca)
	})
	return cmd
}

func (a *app) channelWebhook() *cobra.Command {
	var in client.AlertChannelInput
	var format, ca string
	cmd := &cobra.Command{
		Use:   "webhook NAME",
		Short: "Post alerts to a webhook, whose URL is read from standard input",
		Long: "Post alerts to a webhook as JSON, or as Slack and what speaks like it take them. Who knows the URL can post, so it\n" +
			"is kept like a password, and read from standard input.",
		Example: "  ovgate alert channel create webhook chat --format slack < url",
		Args:    names("NAME"),
	}
	cmd.Flags().StringVar(&format, "format", "json", "json or slack")
	cmd.Flags().StringVar(&ca, "ca", "", "file of certificates in PEM to trust in place of the system's")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		url, err := a.secretLine(ctx, "URL")
		if err != nil {
			return err
		}
		in.Name, in.Kind, in.SecretURL, in.Format = args[0], client.AlertChannelKindWebhook, &url, new(client.AlertChannelInputFormat(format))
		return a.createChannel(ctx, api, in, ca)
	})
	return cmd
}

func (a *app) createChannel(ctx context.Context, api *client.Client, in client.AlertChannelInput, ca string) error {
	if ca != "" {
		pem, err := readBounded(ca, maxCA)
		if err != nil {
			return err
		}
		in.Ca = &pem
	}
	c, err := client.Get[client.AlertChannel](api.CreateAlertChannel(ctx, &client.CreateAlertChannelParams{IdempotencyKey: new(rand.Text())}, in))
	if err != nil {
		return err
	}
	return printOne(a, c, [][]string{{"name", c.Name}, {"kind", string(c.Kind)}, {"where", channelPlace(c)}, {"created", formatTime(&c.Created)}})
}

// channelPlace says where a channel leads, without what is secret.
func channelPlace(c client.AlertChannel) string {
	if c.Kind == client.AlertChannelKindWebhook {
		return c.Format
	}
	return fmt.Sprintf("%s over %s:%d (%s)", strings.Join(c.To, ","), c.Host, c.Port, c.Security)
}

func (a *app) channelList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List where alerts are sent, without secrets", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.AlertChannel, *string, error) {
			l, err := client.Get[client.AlertChannelList](api.ListAlertChannels(ctx, &client.ListAlertChannelsParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "KIND", "WHERE", "CREATED"}, func(c client.AlertChannel) []string {
			return []string{c.Name, string(c.Kind), channelPlace(c), formatTime(&c.Created)}
		})
	})
	return cmd
}

func (a *app) channelTest() *cobra.Command {
	cmd := &cobra.Command{Use: "test NAME", Short: "Send a message that says that it is a test", Args: names("NAME")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		return client.Done(api.TestAlertChannel(ctx, args[0]))
	})
	return cmd
}

func (a *app) channelDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete NAME", Short: "Send no more alerts there", Args: names("NAME")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Delete alert channel "+args[0]+"?"); err != nil {
			return err
		}
		return client.Done(api.DeleteAlertChannel(ctx, args[0]))
	})
	return cmd
}

func (a *app) silenceCreate() *cobra.Command {
	var code, object, why string
	var until expiryFlag
	cmd := &cobra.Command{
		Use:     "create --object OBJECT --until TIME --why TEXT",
		Short:   "Keep alerts from being told for a while",
		Example: "  ovgate alert silence create --object 'vpool gold' --until 2h --why 'switch is replaced'",
		Args:    names(),
	}
	f := cmd.Flags()
	f.StringVar(&code, "code", "", "code of the causes; * stands for any text (default any)")
	f.StringVar(&object, "object", "", "object of the causes, such as 'vpool gold'; * stands for any text (default any)")
	f.Var(&until, "until", "when it ends: after a time such as 2h, or at 2030-01-31 or 2030-01-31T12:00:00Z")
	f.StringVar(&why, "why", "", "why, for those who read it")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		end := until.time(time.Now())
		if end == nil || why == "" {
			return usagef("a silence needs --until and --why")
		}
		s, err := client.Get[client.Silence](api.CreateSilence(ctx, &client.CreateSilenceParams{IdempotencyKey: new(rand.Text())},
			client.SilenceInput{Code: given(code), Object: given(object), UntilAt: *end, Why: why}))
		if err != nil {
			return err
		}
		return printOne(a, s, [][]string{{"id", s.ID}, {"code", dash(s.Code)}, {"object", dash(s.Object)}, {"until", formatTime(&s.UntilAt)}, {"by", s.By}, {"why", s.Why}})
	})
	return cmd
}

func (a *app) silenceList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the silences that last", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.Silence, *string, error) {
			l, err := client.Get[client.SilenceList](api.ListSilences(ctx, &client.ListSilencesParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"ID", "CODE", "OBJECT", "UNTIL", "BY", "WHY"}, func(s client.Silence) []string {
			return []string{s.ID, dash(s.Code), dash(s.Object), formatTime(&s.UntilAt), s.By, s.Why}
		})
	})
	return cmd
}

func (a *app) silenceDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete ID", Short: "End a silence", Args: names("ID")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		return client.Done(api.DeleteSilence(ctx, args[0]))
	})
	return cmd
}
