package main

import (
	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/reflect"
)

func reflectCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "reflect",
		Short: "Tell whoever connects as which address and port it is seen",
		Long: `Runs on any host outside, such as a partner's, for sallyport trace --probe to ask. On
TCP it says the client's ADDRESS:PORT in a line and closes; on UDP it answers so to a
datagram of 64 bytes or more. It logs whom it saw.`,
		Example: `  sallyport reflect --listen 203.0.113.9:9873
  nc 203.0.113.9 9873`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd)
			if err != nil {
				return err
			}
			s, err := reflect.Listen(listen, log)
			if err != nil {
				return err
			}
			log.Info("listening", "address", s.Addr().String())
			return s.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&listen, "listen", ":9873", "address and port, TCP and UDP")
	return cmd
}
